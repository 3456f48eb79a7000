"""The top of a run: what was done, which findings hold, and a row of evidence a language."""

from pathlib import PurePath

from babelscope.report.claim_form import Claim, to_array
from babelscope.report.claims import claims, is_fluent, leads, macro_success, steers, strongest_control
from babelscope.report.harm_claims import adjusted_p, beats_draws, own_hurt_most, pairing_holds, specificity
from babelscope.report.markup import Markup, Section, element, join, language_cell, table
from babelscope.report.results import Results
from babelscope.report.wording import NOT_MEASURED, harm_digits, known, names, p_value, percent, plain, span, together

MARKS = {True: ("yes", "●", "holds: "), False: ("no", "○", "does not hold: "), None: ("", "", "")}


def model_name(results: Results) -> str:
    """What the run calls its model, of a path the last part, else the name of its folder."""
    card = results.model or {}
    found = next((card[key] for key in ("name", "model", "id", "path") if isinstance(card.get(key), str)), None)
    if found is None:
        return results.folder.resolve().name
    path = PurePath(found)
    return "the reference model" if found == "reference" else path.name if path.is_absolute() else found


def summary_section(results: Results) -> Section:
    """What was done and what came out, readable in a minute."""
    body = [
        element("p", what_was_done(results), class_="lead"),
        element("h3", "Which findings hold"),
        _claim_table(claims(results)),
        element("h3", "The evidence by language"),
        _evidence_table(results),
        element(
            "p",
            "● the test of this column holds in this language, ○ it does not; square brackets are intervals; p is "
            "corrected over languages. The lead of stability is over the other languages' sets. Harm is the rise of "
            "the negative log-likelihood of held-out text, in % of what it was.",
            class_="note",
        ),
    ]
    return Section("summary", "In short", join(body))


def what_was_done(results: Results) -> str:
    """Two or three sentences on the run."""
    sizes = results.measured(results.neurons)
    smallest, largest = min(sizes, key=sizes.__getitem__), max(sizes, key=sizes.__getitem__)
    targets = results.measured(results.steered.success)
    steered = f" Directions were added to steer answers into {len(targets)} languages." if targets else ""
    return (
        f"In {model_name(results)}, neurons whose activity is spread over few of {len(results.languages)} languages "
        f"were selected (the {percent(results.top_rate, 1).replace('.0', '')} most selective): "
        f"{plain(sum(sizes.values()), 0)} in all sets together, from {plain(sizes[smallest], 0)} for "
        f"{names([smallest])} to {plain(sizes[largest], 0)} for {names([largest])}. Each language's set was switched "
        f"off on held-out text of every language, and so were random sets of the same size.{steered} Selective means "
        "that a neuron prefers a language; only the interventions speak about causes."
    )


def _claim_table(listed: list[Claim]) -> Markup:
    rows = []
    for claim in listed:
        badge = element("span", claim.verdict, class_=f"verdict {claim.verdict.replace(' ', '-')}")
        tally = element("small", claim.tally) if claim.tally else ""
        failing = ""
        if claim.fails and claim.holds and claim.counts == "languages":
            failing = element("small", f"not in {names(claim.fails)}")
        found = element("span", together(claim.result or NOT_MEASURED))
        rows.append(
            (
                element("span", claim.title),
                join([badge, tally], " "),
                join([found, failing], " "),
                together(claim.control),
            )
        )
    return table(("Finding", "Verdict", "Result", "Control, and when it counts"), rows, kind="claims")


def _evidence_table(results: Results) -> Markup:
    own = dict(zip(results.languages, to_array(results.ablation.relative_harm).diagonal(), strict=True))
    digits = harm_digits(own.values())
    head = (
        "Language", "Neurons", "Stability; lead (range)", "Own harm", "Lead over next", "p, layer-matched",
        "p, contribution-matched", "Steered", "Best control", "Native", "Perplexity ×",
    )  # fmt: skip
    rows = [
        (
            language_cell(tag),
            plain(results.neurons.get(tag), 0),
            _stability_cell(results, tag),
            _marked(own_hurt_most(results).get(tag), percent(own[tag], digits)),
            _specificity_cell(results, tag, digits),
            *(_marked(beats_draws(results, at, tag), p_value(adjusted_p(results, at, tag))) for at in (0, 1)),
            _success_cell(results, tag),
            percent(strongest_control(results, tag)),
            percent(results.steered.native.get(tag)),
            _marked(is_fluent(results, tag), plain(results.steered.perplexity_ratio.get(tag))),
        )
        for tag in results.languages
    ]
    return table(head, rows, kind="evidence")


def _marked(holds: bool | None, text: str, after: str = "") -> Markup:
    kind, sign, spoken = MARKS[holds]
    mark = element("span", sign, class_=f"mark {kind}", role="img", aria_label=spoken) if sign else ""
    small = element("small", after) if after else ""
    return join([part for part in (mark, text, small) if part], " ")


def _stability_cell(results: Results, tag: str) -> Markup:
    row = results.stability.get(tag)
    if row is None or not all(map(known, row[:4])):
        return join(["–"])
    lead = leads(results).get(tag)
    after = "" if lead is None else f"{plain(lead.estimate)} {span(lead.low, lead.high)}"
    return _marked(None if lead is None else lead.low > 0, plain(row.median), after)


def _specificity_cell(results: Results, tag: str, digits: int) -> Markup:
    lead = specificity(results).get(tag)
    if lead is None:
        return join(["–"])
    holds = lead.low > 0 and pairing_holds(results) is not False
    return _marked(holds, percent(lead.estimate, digits), span(lead.low, lead.high, digits, factor=100))


def _success_cell(results: Results, tag: str) -> Markup:
    rate = results.measured(results.steered.success).get(tag)
    if rate is None:
        return join(["–"])
    low, high = results.measured(results.steered.success_interval).get(tag) or (None, None)
    return _marked(steers(results, tag), percent(rate), span(low, high, 0, factor=100))


def comparison_table(runs: list[Results]) -> Markup:
    """The runs of a page side by side."""
    rows = []
    for run in runs:
        found = claims(run)
        rows.append(
            (
                element("a", f"{run.folder.resolve().name}", href=f"#run{runs.index(run) + 1}"),
                model_name(run),
                str(len(run.languages)),
                plain(sum(run.neurons.values()), 0),
                *(claim.tally or "–" for claim in (found[1], found[3])),
                macro_success(run, "success"),
                macro_success(run, "native"),
            )
        )
    head = (
        "Run", "Model", "Languages", "Neurons", "Own language hurt most, by "
        "interval", "More than contribution-matched draws", "Steered",
        "Native",
    )  # fmt: skip
    return table(head, rows)
