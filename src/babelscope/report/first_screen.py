"""What is seen first: the finding in one sentence, what holds and what does not, answers, and where the neurons are."""

from babelscope.figures import figure_svg, neuron_map
from babelscope.report.answer_samples import sample_card
from babelscope.report.claim_form import to_array
from babelscope.report.claims import claims, macro_success
from babelscope.report.harm_claims import own_hurt_most, own_language_claim
from babelscope.report.markup import Markup, element, join
from babelscope.report.results import Results
from babelscope.report.wording import known, names, plain, together

ANSWERS = 3
"""Targets of which an answer is shown."""


def first_screen(results: Results, run: str, *, include_samples: bool) -> Markup:
    """The model, one sentence, all verdicts, answers before and after in three languages, and the map of neurons."""
    answers = _answers(results) if include_samples else []
    drawn = []
    if results.layers is not None:
        title = "Neurons of each language by layer"
        figure = neuron_map(counts=to_array(results.layers.counts), languages=results.languages)
        drawing = figure_svg(figure, name=f"{run}-first", title=title, description="A row is a language.")
        drawn = [element("div", element("h4", title), Markup(drawing), class_="panel")]
    shown = element("div", *answers, class_="answers") if answers else ""
    below = element("div", shown, *drawn, class_="first") if answers or drawn else ""
    return join([
        element("p", ", ".join(_about(results)), class_="sub"),
        element("p", together(headline(results)), class_="lead"),
        _verdicts(results, run),
        below,
    ])  # fmt: skip


def headline(results: Results) -> str:
    """What came out, in one sentence, with what it is compared with; it counts languages as the verdict does."""
    claim, most = own_language_claim(results), own_hurt_most(results)
    counted = claim.tally or f"{sum(most.values())} of {len(most)} languages, without an interval,"
    said = f"The neurons of {counted} harm their own language most when switched off"
    if results.measured(results.steered.success):
        said += (
            f"; with a direction added, {macro_success(results, 'success')} of answers are in the language asked for "
            f"(unsteered {macro_success(results, 'unsteered')}, native text {macro_success(results, 'native')})"
        )
    return f"{said}."


def _about(results: Results) -> list[str]:
    card = results.model or {}
    facts = [f"{len(results.languages)} languages", f"run folder {results.folder.resolve().name}"]
    if known(card.get("parameters")):
        facts.insert(0, f"{plain(card['parameters'] / 1e6, 1)} million parameters")
    if isinstance(card.get("architecture"), str):
        facts.insert(0, card["architecture"])
    return facts


def _verdicts(results: Results, run: str) -> Markup:
    """A line for each kind of verdict: what does not hold, or was not asked, is as large as what holds."""
    by_verdict: dict[str, list[Markup]] = {}
    for claim in claims(results):
        tally = element("small", f" {claim.tally}") if claim.tally else ""
        by_verdict.setdefault(claim.verdict, []).append(element("span", claim.title, tally))
    order = ("holds", "holds in part", "does not hold", "no test", "not measured")
    lines = [
        element(
            "li",
            element("span", verdict, class_=f"verdict {verdict.replace(' ', '-')}"),
            element("span", join(by_verdict[verdict], " · ")),
        )
        for verdict in order
        if verdict in by_verdict
    ]
    more = element("a", "What each was compared with", href=f"#{run}-summary")
    return element("div", element("ul", *lines, class_="verdicts"), element("p", more, class_="data"))


def _answers(results: Results) -> list[Markup]:
    """The first answer that was kept of three targets, taken evenly over the list."""
    rows = results.steered.samples or ()
    targets = list(dict.fromkeys(row.target for row in rows))
    if len(targets) > ANSWERS:
        # Evenly over the list of targets, right or wrong: nothing is picked by how it came out.
        targets = [targets[at * (len(targets) - 1) // (ANSWERS - 1)] for at in range(ANSWERS)]
    shown = [next(row for row in rows if row.target == tag) for tag in targets]
    if not shown:
        return []
    title = element("h4", f"The first answer steered to {names(targets)}")
    return [title, *map(sample_card, shown)]
