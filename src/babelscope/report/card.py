"""The end of the page: everything that was used, and what the numbers do not say."""

from dataclasses import replace

from babelscope.report.markup import (
    Markup,
    Section,
    definition_list,
    details,
    element,
    join,
    language_cell,
    missing,
    table,
)
from babelscope.report.results import Results
from babelscope.report.results.record_json import to_json
from babelscope.report.results.study_results import CorpusCard
from babelscope.report.wording import known, names, p_value, plain

MISMATCH = 0.1
"""Distance from 1 of a control's contribution over the set's own from which it is named."""
SMALL_SET = 10
"""Neurons below which a set is named as small."""
GENERAL = (
    (
        "Selective is not causal.",
        "A neuron that is active mostly in one language is selective. Only switching it off, or writing into it, "
        "says whether the model uses it; a set can be selective and do nothing.",
    ),
    (
        "Shuffled labels are no evidence of specificity.",
        "That test asks whether labels matter at all, and nearly every neuron passes. It guards against rare neurons "
        "and too little text.",
    ),
    (
        "A random set is a weak opponent.",
        "Random neurons are quiet, a language's neurons are loud. This is why the contribution-matched draws stand "
        "beside the layer-matched ones.",
    ),
    (
        "Harm is loss on text, not loss of ability.",
        "A rise of the negative log-likelihood says that the text became less expected. It does not say what the "
        "model can no longer do.",
    ),
    (
        "The range over half-splits is no confidence interval.",
        "It says how far sets from different halves agree. Bootstrap intervals treat shards, documents or prompts as "
        "independent, which they are only in part.",
    ),
    (
        "The right language is not the right answer.",
        "Success means that a detector read the target language. It says nothing about content; perplexity and "
        "distinct 4-grams only guard against noise and loops. The detector errs, most often on short lines and "
        "between close relatives.",
    ),
    (
        "Romanised text is unusual text.",
        "The model has seen little of it, Arabic loses its vowels, and a drop may come from that and not from the "
        "script.",
    ),
    (
        "A set depends on the languages compared.",
        "Selection looks at all languages of the run together: with another list of languages the sets are others. "
        "One model, one corpus: nothing here is shown for another.",
    ),
)
"""Limits that hold for every run: a heading and what it means."""


def card_section(results: Results) -> Section:
    """Part 9: model, corpus, parameters, seeds, time, environment, files."""
    body = []
    parameters = {"top_rate": results.top_rate, **(results.identification or {})}
    cards = {
        "Model": results.model,
        "Parameters": {**parameters, **(results.parameters or {})},
        "Budget": results.budget,
        "Seeds": _seeds(results),
    }
    for title, fields in cards.items():
        body.append(_part(title, definition_list(fields) if fields else missing(title)))
    body += [_part("Corpus", _corpus(results)), _part("Time", _seconds(results))]
    body.append(_part("Environment", definition_list(results.environment) or missing("Environment")))
    listed = [element("li", element("code", name)) for name in results.files or ()]
    file_list = element("ul", *listed) if listed else missing("Files")
    body.append(_part("Files saved beside this page", file_list))
    return Section("card", "What was used", element("div", *body, class_="sheet"))


def limits_section(runs: list[Results]) -> Section:
    """What the numbers do not say, in general and for these runs."""
    general = [element("li", element("strong", head), " ", words) for head, words in GENERAL]
    run_limits = []
    for run in runs:
        name = f"{run.folder.resolve().name}: " if len(runs) > 1 else ""
        run_limits += [element("li", name, words) for words in _own_limits(run)]
    more = (
        [element("h3", "In these runs" if len(runs) > 1 else "In this run"), element("ul", *run_limits)]
        if run_limits
        else []
    )
    return Section("limits", "What these numbers do not say", join([element("ul", *general, class_="limits"), *more]))


def _own_limits(results: Results) -> list[str]:
    said = []
    draws = results.ablation.draws
    if draws is not None and known(draws):
        said.append(
            f"With {plain(draws, 0)} draws a control, no p-value can be smaller than {p_value(1 / (draws + 1))}."
        )
    achieved = results.measured(results.ablation.achieved_contribution)
    if off := [tag for tag, x in achieved.items() if abs(x - 1) > MISMATCH]:
        said.append(
            f"The contribution-matched sets of {names(off)} contribute over 10 % more or less than the set does."
        )
    small = [tag for tag, n in results.measured(results.neurons).items() if 0 < n < SMALL_SET]
    if small:
        said.append(f"Sets of fewer than {SMALL_SET} neurons: {names(small)}; their rows move with single neurons.")
    empty = [tag for tag, n in results.measured(results.neurons).items() if n == 0]
    if empty:
        said.append(f"No neuron was selected for {names(empty)}.")
    corpus = results.corpus or CorpusCard()
    if short := [tag for tag, n in results.measured(corpus.shortfall).items() if n > 0]:
        said.append(f"Less text than asked for: {names(short)}; nothing was padded out.")
    if blind := results.steered.not_measurable:
        said.append(f"Steering into {names(blind)} could not be measured: the detector does not know the language.")
    said.append(
        "One seed a stage: the intervals do not hold the variation between seeds or between trainings of a model."
    )
    return said


def _part(title: str, content: Markup) -> Markup:
    return element("section", element("h3", title), content)


def _corpus(results: Results) -> Markup:
    corpus = results.corpus
    if corpus is None or not to_json(corpus):
        return missing("Corpus")
    tokens, short = results.measured(corpus.tokens), results.measured(corpus.shortfall)
    other_facts = to_json(replace(corpus, tokens=None, shortfall=None))
    rows = [(language_cell(tag), plain(n, 0), plain(short.get(tag, 0), 0)) for tag, n in tokens.items()]
    by_language = details("Tokens by language", table(("Language", "Tokens", "Short by"), rows)) if rows else Markup("")
    return join([definition_list(other_facts) if other_facts else "", by_language])


def _seeds(results: Results) -> dict[str, str]:
    seeds = {
        "run": results.seed,
        "ablation": results.ablation.seed,
        "steering": results.steered.seed,
        "controls": results.controlled.seed,
        **(results.seeds or {}),
    }
    return {stage: str(seed) for stage, seed in seeds.items() if seed is not None and known(seed)}


def _seconds(results: Results) -> Markup:
    seconds_of_stage = {stage: s for stage, s in results.seconds.items() if known(s) and stage != "total"}
    if not seconds_of_stage:
        return missing("Seconds by stage")
    longest = max(seconds_of_stage.values()) or 1
    rows = [
        (
            stage.replace("_", " "),
            plain(s, 1),
            element("span", class_="bar", style=f"width:{max(1, 100 * s / longest):.0f}%"),
        )
        for stage, s in seconds_of_stage.items()
    ]
    return table(("Stage", "Seconds", ""), [*rows, ("all", plain(sum(seconds_of_stage.values()), 1), "")], kind="time")
