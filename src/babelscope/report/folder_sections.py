"""Sections of the folders of single commands: what was read, features, side effects, adaptation, fallback."""

from collections.abc import Mapping

import numpy as np

from babelscope.artifacts import Observation
from babelscope.artifacts.feature_observation import FeatureObservation
from babelscope.artifacts.feature_set import FeatureSet
from babelscope.figures import rate_map, side_effect_lines, unit_rate_map
from babelscope.figures.adaptation import change_bars
from babelscope.figures.fallback_map import fallback_map
from babelscope.report.folder_records import AdaptationFile, FallbackFile, SweepFile
from babelscope.report.markup import (
    Caption,
    Markup,
    Plot,
    Section,
    element,
    figure_block,
    join,
    language_cell,
    matrix_records,
    table,
)
from babelscope.report.results.record_json import to_json
from babelscope.report.wording import percent, plain
from babelscope.steering.sweeps import answer_shares

FEATURES_SHOWN = 5
"""Features of a language in the picture of rates."""


def tokens_section(observed: Observation, name: str) -> Section:
    """What was read of each language, and how often units are active, by layer."""
    tags = observed.languages
    lines = [
        (language_cell(tag), plain(int(observed.token_counts[k]), 0), plain(int(observed.documents[k]), 0))
        for k, tag in enumerate(tags)
    ]
    body: list[Markup] = [table(("Language", "Tokens", "Documents"), lines)]
    # The sign of the stream, or of what a gate has multiplied, says nothing of how active a unit is.
    if (at := "mlp_gate") in observed.records:
        part = observed[at]
        share = part.active.double().mean(dim=1) / observed.token_counts.clamp(min=1)
        rates = share.T.numpy()
        caption = Caption(
            shows=f"Share of tokens on which a unit of {at} is above 0, mean over the units of a layer.",
            read="A row is a language, a column a layer. Rows that differ say that text of one language makes more "
            "units active; which units these are is what the command identify asks.",
            n=f"{plain(int(observed.token_counts.sum()), 0)} tokens",
            control="none: these are counts",
            seed="nothing random",
            unit="% of tokens",
        )
        records = matrix_records(rates, tags, part.layers, ("language", "layer", "share"))
        plot = Plot(
            rate_map(rates=rates, layers=part.layers, languages=tags), f"How often units of {at} are active", records
        )
        body.append(figure_block(f"{name}-{at}", [plot], caption))
    return Section("tokens", "What was read", join(body))


def features_section(sets: FeatureSet, observed: FeatureObservation, name: str) -> Section:
    """How often the best features of each language fire on the text of every language."""
    rate = (observed.fired.double() / observed.tokens.double()).numpy()
    sizes = table(("Language", "Features"), [(language_cell(tag), plain(n, 0)) for tag, n in sets.sizes.items()])
    chosen = [(tag, int(at)) for tag in sets.languages for at in sets.features(tag)[:FEATURES_SHOWN]]
    if not chosen:
        return Section("features", "Features of each language", sizes)
    rates = np.stack([rate[at] for _, at in chosen])
    units = [f"{tag}: {at}" for tag, at in chosen]
    caption = Caption(
        shows=f"Share of tokens on which the best {FEATURES_SHOWN} features of each language fire.",
        read="A row is a feature, by language and number; a column is a language's text. A feature of one language is "
        "bright in one column only.",
        n=f"{plain(int(observed.tokens.sum()), 0)} tokens",
        control="the other languages in the same row",
        seed="that of the random tokens, where the method reads them",
        unit="% of tokens",
    )
    records = matrix_records(rates, units, observed.languages, ("feature", "language", "share"))
    plot = Plot(
        unit_rate_map(rates=rates, units=units, languages=observed.languages), "How often features fire", records
    )
    return Section(
        "features", "Features of each language", join([sizes, figure_block(f"{name}-features", [plot], caption)])
    )


def side_effect_section(sweep: SweepFile, name: str) -> Section:
    """Success of a sweep by strength at the chosen layer, beside the change on text that is no target's."""
    effects = [to_json(effect) for effect in sweep.side_effects or ()]
    caption = Caption(
        shows="Success by strength, and the change in bits per byte of text with the direction left on.",
        read="Above: right answers on the development prompts at the chosen layer. Below: a line is the mean over "
        "targets; 0 is the model as it is, above it text has become less likely.",
        n=f"{len(effects):,} texts under a direction",
        control="strength 0, which is the model as it is",
        seed="nothing random",
        unit="% of answers (above), bits per byte (below)",
    )
    plot = Plot(
        side_effect_lines(points=list(map(to_json, sweep.sweep)), effects=effects, layer=int(sweep.layer)),
        "Success and side effects by strength",
        effects,
    )
    return Section("side-effects", "What steering changes besides", figure_block(f"{name}-side", [plot], caption))


def adaptation_section(written: AdaptationFile, name: str) -> Section:
    """Bits per byte of every test language before and after."""
    lines = [
        (
            language_cell(tag),
            plain(written.before.get(tag), 4),
            plain(after, 4),
            plain(None if tag not in written.before else after - written.before[tag], 4),
        )
        for tag, after in written.after.items()
    ]
    gained = percent(abs(written.gain) / written.before[written.language], 1)
    course = "fewer" if written.gain > 0 else "more"
    body = [
        element(
            "p",
            f"Trained on {written.language} at learning rate {written.learning_rate:g}; a fall is a gain. ",
            f"Text of {written.language} takes {gained} {course} bits.",
        ),
        table(("Test text", "Bits per byte before", "After", "Change"), lines),
    ]
    change = {tag: after - written.before[tag] for tag, after in written.after.items() if tag in written.before}
    caption = Caption(
        shows="Change in bits per byte of held-out text, by its language.",
        read=f"A bar to the left is a gain, to the right a harm. The first is {written.language}, the trained one.",
        n="in result.json of the folder",
        control="the model before training; what random neurons of as many gain is not in this folder",
        seed="that of the training",
        unit="bits per byte",
    )
    records = [{"language": tag, "change": value} for tag, value in change.items()]
    plot = Plot(change_bars(change=change, trained=written.language), "Change by test language", records)
    body.append(figure_block(f"{name}-change", [plot], caption))
    return Section("adaptation", "What training changed", join(body))


def fallback_section(written: FallbackFile, name: str) -> Section:
    """Answers by language with the neurons of more and more languages off, beside those of random sets."""
    sides = [[step.answers for step in written.steps], [step.random_sets for step in written.steps]]
    tags, share, control = answer_shares(*sides)
    off = [", ".join(step.off) or "none" for step in written.steps]
    lines = [
        (
            names,
            plain(step.neurons, 0),
            left_share(step.answers, written.first),
            left_share(step.random_sets, written.first),
        )
        for names, step in zip(off, written.steps, strict=True)
    ]
    head = ("Off", "Neurons", f"Not in {written.first}", "With random sets")
    caption = Caption(
        shows="Share of the answers in each language with the neurons of more and more languages off.",
        read="A row is a step: what is off there stays off in the rows below. A column is the language of the answer; "
        "in brackets is the share with random sets. The language that the answers leave for is bright in the lower "
        "rows and large outside the brackets alone.",
        n=f"{plain(sum(written.steps[0].answers.values()), 0)} prompts in {written.first}",
        control=f"{plain(written.draws, 0)} random sets a step of as many neurons in each layer, that no language has",
        seed=plain(written.seed, 0),
        unit="% of answers",
    )
    names = [tag or "none" for tag in tags]
    records = [
        {**record, "random_sets": control_record["share"]}
        for record, control_record in zip(
            *(matrix_records(values, off, names, ("off", "answer", "share")) for values in (share, control)),
            strict=True,
        )
    ]
    plot = Plot(fallback_map(share=share, control=control, off=off, languages=tags), "Language of the answers", records)
    return Section(
        "fallback",
        "Which language comes out",
        join([table(head, lines), figure_block(f"{name}-left", [plot], caption)]),
    )


def left_share(counts: Mapping[str, int | float], first: str) -> str:
    """Share of the answers that are not in the language of the prompts; a dash where there are none."""
    total = sum(counts.values())
    return percent((total - counts.get(first, 0)) / total) if total else "–"
