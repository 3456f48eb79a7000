"""Sections about interventions: switching sets off, and steering."""

import math
from collections.abc import Mapping

import numpy as np

from babelscope.figures import (
    DosePoint,
    ablation_map,
    colour_limit,
    dose_response,
    harm_against_draws,
    source_target_map,
    steering_bars,
)
from babelscope.report.claims import macro_success, p_pair
from babelscope.report.markup import (
    Caption,
    Markup,
    Plot,
    Section,
    details,
    element,
    figure_block,
    join,
    language_cell,
    missing,
    table,
)
from babelscope.report.results import Results
from babelscope.report.selection import UNRECORDED, matrix_table, seed_of
from babelscope.report.wording import harm_digits, known, names, p_value, percent, plain, span, span_over

COMPARISONS = {
    "native": "Native text",
    "unsteered": "Unsteered",
    "random": "Random direction",
    "other_language": "Other language's direction",
    "neuron_arithmetic": "Neuron arithmetic",
}


def ablation_section(results: Results, run: str) -> Section:
    """Figure 4: the matrix of harm, and own-language harm against random sets."""
    harm = results.matrix("ablation.relative_harm")
    assert harm is not None
    body = [
        element(
            "p",
            "A set is switched off by holding its neurons at 0 while the model reads held-out text. "
            "Harm is the rise of the text's negative log-likelihood, in % of what it was without.",
        ),
        _harm_map(results, f"{run}-harm", harm, "0"),
        _harm_draws(results, f"{run}-draws", harm.diagonal()),
    ]
    to_mean = results.matrix("ablation.relative_harm_to_mean")
    if to_mean is None:
        body.append(missing("Switching off to the mean instead of 0"))
    else:
        body += [element("h3", "To the mean instead of 0"), _harm_map(results, f"{run}-mean", to_mean, "their mean")]
    body.append(_choice(results))
    return Section("ablation", "What switching a set off harms", join(body))


def _harm_map(results: Results, name: str, harm: np.ndarray, held_at: str) -> Markup:
    digits = harm_digits(harm.ravel().tolist())
    caption = Caption(
        shows=f"Harm of switching off the row's set on text in the column's language, neurons held at {held_at}.",
        read="The outlined diagonal is a language's own text. Orange is harm, blue is gain, white is nothing; the colours are "
        f"symmetric and stop at ±{plain(colour_limit(100 * harm), digits)} %. A set that is specific has an orange "
        "diagonal cell in a pale row.",
        n=_test_size(results),
        control="the other languages in the same row; random sets in the next figure",
        seed="nothing random",
        unit="% of the negative log-likelihood (nats) of the text",
    )
    numbers = [
        matrix_table(harm, results.languages, results.languages, lambda x: percent(x, digits).removesuffix(" %"))
    ]
    bits = results.matrix("ablation.bits_per_byte")
    if bits is not None and held_at == "0":
        numbers += [
            element("p", "Bits per byte, rise"),
            matrix_table(bits, results.languages, results.languages, lambda x: plain(x, 4)),
        ]
    figure = ablation_map(relative_harm=harm, languages=results.languages)
    plot = Plot(figure, f"Relative harm by set and language, neurons held at {held_at}", wide=True)
    return figure_block(name, [plot], caption, *numbers)


def _harm_draws(results: Results, name: str, own: np.ndarray) -> Markup:
    draws = {key: results.by_language(f"ablation.{key}") for key in ("layer_matched", "contribution_matched")}
    layer, contribution = ({tag: _numbers(row) for tag, row in draws[key].items()} for key in draws)
    pairs = {tag: p_pair(results, tag) for tag in results.languages}
    shown = {tag: f"p {p_value(a)} · {p_value(b)}" for tag, (a, b) in pairs.items() if a is not None or b is not None}
    figure = harm_against_draws(
        own_harm=own, layer_matched=layer, contribution_matched=contribution, p=shown, languages=results.languages
    )
    n = results.find("ablation.draws")
    caption = Caption(
        shows="Own-language harm of each set beside that of random sets.",
        read="The diamond is the set, a dot one random set of the same size. A diamond clear to the right of its dots harms "
        "more than chance. On the right: rank p against layer-matched · contribution-matched draws; with R draws it can "
        "not go below 1 ÷ (R + 1).",
        n=f"{_test_size(results)}; {plain(n, 0) if known(n) else UNRECORDED} draws a language and control",
        control="layer-matched: as many unselected neurons in each layer; contribution-matched: unselected neurons of the "
        "same layer that write about as much into the residual stream",
        seed=seed_of(results, "ablation"),
        unit="% of the negative log-likelihood of own-language text",
    )
    digits = harm_digits(own.tolist())
    rows = [
        (
            language_cell(tag),
            percent(harm, digits),
            percent(_mean(layer.get(tag)), digits),
            percent(_mean(contribution.get(tag)), digits),
            _ratio(results, "layer_matched", tag),
            _ratio(results, "contribution_matched", tag),
            p_value(pairs[tag][0]),
            p_value(pairs[tag][1]),
            p_value(results.by_language("ablation.p_holm").get(tag)),
        )
        for tag, harm in zip(results.languages, own.tolist(), strict=True)
    ]
    head = (
        "Language", "The set", "Layer-matched, mean", "Contribution-matched, mean", "Ratio, layer", "Ratio, contribution",
        "p, layer", "p, contribution", "p after Holm",
    )  # fmt: skip
    return figure_block(
        name, [Plot(figure, "Own-language harm of each set and of random sets")], caption, table(head, rows)
    )


def dose_section(results: Results, run: str) -> Section:
    """Figure 5: success and fluency against strength."""
    title = "How much steering is enough"
    rows = results.find("steering.sweep")
    if not rows:
        return Section("dose", title, missing("Dose–response"))
    points = [
        DosePoint(
            layer=int(row["layer"]),
            strength=row["strength"],
            **{key: _nan(row.get(key)) for key in ("success", "low", "high", "perplexity_ratio", "distinct4_ratio")},
        )
        for row in rows
    ]
    chosen = _chosen(results)
    caption = Caption(
        shows="Success and fluency by strength and layer, on the development prompts.",
        read="Above: answers recognised as the target language, with intervals. Below: perplexity of the answers over that of "
        "native ones, on a logarithmic scale; inside the band (0.67–1.5) they are as fluent. The ring is the setting "
        "that was chosen here and then tested once on other prompts.",
        n=f"{span_over([row['n'] for row in rows if row.get('n') is not None], 0)} answers a point",
        control="strength 0 where it was run; the native answers that perplexity is divided by",
        seed=seed_of(results, "steering"),
        unit="% of answers (above), ratio of perplexities (below), strength in shares of the mean residual norm",
    )
    lines = [
        (
            str(point.layer), plain(point.strength), percent(point.success, 1), span(point.low, point.high, 1, factor=100),
            plain(point.perplexity_ratio), plain(point.distinct4_ratio), plain(row.get("n"), 0),
        )
        for point, row in zip(points, rows, strict=True)
    ]  # fmt: skip
    head = ("Layer", "Strength", "Success", "Interval", "Perplexity ×", "Distinct-4 ×", "n")
    plots = [
        Plot(dose_response(points=points, chosen=chosen), "Success and perplexity ratio by strength, a line a layer")
    ]
    return Section("dose", title, figure_block(f"{run}-dose", plots, caption, table(head, lines)))


def steering_section(results: Results, run: str) -> Section:
    """Figure 6: success by source and target, and by target against every control."""
    title = "Whether steering works"
    success = results.by_language("steering.success")
    body: list[Markup] = []
    if success:
        body.append(_bars(results, f"{run}-targets", success))
    else:
        body.append(missing("Steering"))
    by_source = results.find("steering.by_source")
    if by_source is None:
        body.append(missing("Success by language of the prompt"))
    else:
        body.append(_source_map(results, f"{run}-sources", by_source))
    left_out = results.find("steering.not_measurable")
    if left_out:
        body.append(
            element("p", f"Not measurable: {names(left_out)} – the language detector does not know it.", class_="note")
        )
    return Section("steering", title, join(body))


def _bars(results: Results, name: str, success: Mapping[str, float]) -> Markup:
    ends = {
        tag: (pair[0], pair[1])
        for tag, pair in results.by_language("steering.success_interval").items()
        if known(pair[0]) and known(pair[1])
    }
    others = {key: results.by_language(f"steering.{key}") for key in COMPARISONS}
    others = {key: rates for key, rates in others.items() if rates}
    targets = list(success)
    figure = steering_bars(success=success, intervals=ends, comparisons=others, targets=targets)
    absent = [label.lower() for key, label in COMPARISONS.items() if key not in others]
    caption = Caption(
        shows="Answers in the target language, by target.",
        read="The bar is steering with its 95 % Wilson interval"
        + ("" if ends else " (not measured in this run)")
        + "; the marks are what it is compared with. A bar that reaches the native mark can not be told from native text."
        + (f" Not measured in this run: {', '.join(absent)}." if absent else ""),
        n=_answers(results),
        control="unsteered, random direction of the same norm, another language's direction; ceiling: the model's own "
        "continuations of native text",
        seed=seed_of(results, "steering"),
        unit=f"% of answers; {_setting(results)}",
    )
    rows = [
        (
            language_cell(tag),
            percent(success[tag], 1),
            span(*ends.get(tag, (None, None)), 1, factor=100),
            *(percent(rates.get(tag), 1) for rates in others.values()),
            plain(results.by_language("steering.perplexity_ratio").get(tag)),
            plain(results.by_language("steering.distinct4_ratio").get(tag)),
        )
        for tag in targets
    ]
    head = ("Target", "Steered", "Interval", *(COMPARISONS[key] for key in others), "Perplexity ×", "Distinct-4 ×")
    macro = [
        (COMPARISONS.get(key, key.replace("_", " ")), macro_success(results, key))
        for key in results.find("steering.macro") or {}
    ]
    means = [table(("Mean over targets", "Success"), macro)] if macro else []
    plot = Plot(figure, "Success by target beside native text and controls")
    return figure_block(name, [plot], caption, table(head, rows), *means)


def _source_map(results: Results, name: str, found: Mapping[str, list]) -> Markup:
    values = np.array([[_nan(x) for x in row] for row in found["success"]], dtype=np.float64)
    figure = source_target_map(success=values, sources=found["sources"], targets=found["targets"])
    caption = Caption(
        shows="Success by language of the prompt and target.",
        read="A pale row is a language that is hard to leave, a pale column one that is hard to reach. Empty cells were "
        "not measured.",
        n=_answers(results),
        control="the figure above",
        seed=seed_of(results, "steering"),
        unit=f"% of answers; {_setting(results)}",
    )
    numbers = matrix_table(values, found["sources"], found["targets"], lambda x: percent(x, 1).removesuffix(" %"))
    plot = Plot(figure, "Success by language of the prompt (rows) and target (columns)", wide=True)
    return figure_block(name, [plot], caption, numbers)


def _choice(results: Results) -> Markup:
    rows = results.find("ablation.choice")
    if not rows:
        return missing("How the selected share was chosen")
    keys = list(dict.fromkeys(key for row in rows for key in row))
    lines = [tuple(_cell(key, row.get(key)) for key in keys) for row in rows]
    words = {"top_rate": "Selected share", "own_hurt_most": "Own language hurt most", "mean_own_harm": "Mean own harm"}
    head = [words.get(key, key.replace("_", " ")) for key in keys]
    return details("How the selected share was chosen", table(head, lines))


def _cell(key: str, value: object) -> str:
    if not isinstance(value, int | float):
        return "–" if value is None else str(value)
    if key in ("top_rate", "mean_own_harm") or key.endswith("_harm"):
        return percent(value, 3)
    return plain(value, 0 if float(value).is_integer() else 3)


def _chosen(results: Results) -> list[tuple[int, float]]:
    layer, strength = results.find("steering.layer"), results.find("steering.strength")
    tags = results.languages if isinstance(layer, dict) or isinstance(strength, dict) else results.languages[:1]
    pairs = [(_of(layer, tag), _of(strength, tag)) for tag in tags]
    return sorted({(int(a), float(b)) for a, b in pairs if a is not None and b is not None})


def _of(value: float | dict[str, float | None], tag: str) -> float | None:
    return value.get(tag) if isinstance(value, dict) else value


def _setting(results: Results) -> str:
    layer, strength = results.find("steering.layer"), results.find("steering.strength")
    said = [
        "layer by language" if isinstance(layer, dict) else f"layer {plain(layer, 0)}",
        "strength by language" if isinstance(strength, dict) else f"strength {plain(strength)}",
    ]
    for key, name, digits in (("temperature", "temperature", 2), ("new_tokens", "new tokens", 0)):
        value = results.find(f"steering.{key}")
        said += [f"{name} {plain(value, digits)}"] if known(value) else []
    return ", ".join(said)


def _answers(results: Results) -> str:
    n = list(results.by_language("steering.n").values())
    if not n:
        return f"answers a target {UNRECORDED}"
    return f"{plain(n[0], 0) if min(n) == max(n) else span_over(n, 0)} answers a target"


def _test_size(results: Results) -> str:
    said = []
    for key in ("documents", "tokens"):
        n = list(results.by_language(f"ablation.{key}").values())
        if n:
            said.append(f"{plain(n[0], 0) if min(n) == max(n) else span_over(n, 0)} {key}")
    return f"{', '.join(said)} a language" if said else f"size of the test text {UNRECORDED}"


def _ratio(results: Results, key: str, tag: str) -> str:
    row = results.by_language(f"ablation.ratio_{key}").get(tag)
    return f"{plain(row[0], 1)} {span(row[1], row[2], 1)}".strip() if row else "–"


def _numbers(row: list[float | None]) -> list[float]:
    return [x for x in row if x is not None]


def _mean(row: list[float] | None) -> float | None:
    return float(np.mean(row)) if row else None


def _nan(value: float | None) -> float:
    return math.nan if value is None else float(value)
