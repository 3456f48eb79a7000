"""Which findings hold: each claim with its control, its result and the languages in which it stands."""

import math

import numpy as np

from babelscope.figures import PERPLEXITY_BAND, Number
from babelscope.report.claim_form import LEVEL, Claim, holds_and_fails, middle, percent_range
from babelscope.report.harm_claims import exclusive_claim, own_language_claim, random_sets_claim
from babelscope.report.results import Results
from babelscope.report.wording import known, percent, plain, span, span_over

DISTINCT_FLOOR = 0.8
"""Least share of distinct 4-grams, steered over native, that counts as fluent."""
NAMED_PAIRS = 3
"""Pairs of languages that a line names."""
CEILING_SHARE = 0.5
"""Least success over that of native text that counts as steering: an effect can be certain and small."""


def claims(results: Results) -> list[Claim]:
    """The findings of a run, in the order of the page."""
    return [
        _stable(results),
        own_language_claim(results),
        exclusive_claim(results),
        random_sets_claim(results, 0, "random neurons of the same layers"),
        random_sets_claim(results, 1, "random neurons of the same layers and contribution"),
        _steers(results),
        _fluent(results),
        _more_than_script(results),
        _overlap(results),
    ]


def leads(results: Results) -> dict[str, list[Number]]:
    """Lead of a set over the other languages' sets of the other half of the text, with its range, where known."""
    rows = results.by_language("stability_lead")
    return {tag: values for tag, values in rows.items() if all(map(known, values))}


def steers(results: Results, tag: str) -> bool | None:
    """Whether steering succeeds more often than each control and half as often as native text; None untested."""
    p = results.by_language("steering.p").get(tag)
    success, native = (results.by_language(f"steering.{key}").get(tag) for key in ("success", "native"))
    if p is None or success is None or native is None:
        return None
    return p <= LEVEL and success >= CEILING_SHARE * native


def strongest_control(results: Results, tag: str) -> float:
    """Highest success of the controls of steering: nothing, a random direction, another language's direction."""
    rates = [results.by_language(f"steering.{key}").get(tag) for key in ("unsteered", "random", "other_language")]
    return max((float(rate) for rate in rates if rate is not None), default=math.nan)


def is_fluent(results: Results, tag: str) -> bool | None:
    """Interval of the perplexity ratio inside the band and distinct-4 above the floor; False where it lies outside.

    None without an interval, and where it reaches over an end of the band: so few answers are no test.
    """
    interval = results.by_language("steering.perplexity_interval").get(tag)
    distinct = results.by_language("steering.distinct4_ratio").get(tag)
    if interval is None or distinct is None or not all(map(known, interval)):
        return None
    (low, high), (least, most) = interval, PERPLEXITY_BAND
    if distinct < DISTINCT_FLOOR or high < least or low > most:
        return False
    return True if least <= low and high <= most else None


def _stable(results: Results) -> Claim:
    rows = {tag: values for tag, values in results.by_language("stability").items() if all(map(known, values[:4]))}
    lead = leads(results)
    result = ""
    if rows:
        medians = [values[0] for values in rows.values()]
        result = f"Jaccard index of two halves: median {middle(medians, plain)} ({span_over(medians)} over languages)"
    if lead:
        medians = [values[0] for values in lead.values()]
        result += f"; lead over the other languages' sets: median {middle(medians, plain)} ({span_over(medians)})"
    return Claim(
        title="The set of a language is found again in other text",
        control="the other languages' sets, found in the other half; counts where the whole range of the lead over "
        "half-splits lies above 0",
        result=result,
        **holds_and_fails({tag: values[1] > 0 for tag, values in lead.items()}),
    )


def _steers(results: Results) -> Claim:
    success = results.by_language("steering.success")
    result = ""
    if success:
        said = [
            f"{name} {macro_success(results, key)}"
            for key, name in (
                ("success", "steered"), ("native", "native text"), ("unsteered", "unsteered"), ("random", "random"),
                ("other_language", "other language's"),
            )
            if results.by_language(f"steering.{key}")
        ]  # fmt: skip
        result = ", ".join(said)
    return Claim(
        title="Adding the direction makes answers come in the target language",
        control="no steering, a random direction, another language's direction; counts where answers are right more "
        "often than in each (Fisher's exact test, p ≤ 0.05, corrected over targets) and half as often as native text",
        result=result,
        **holds_and_fails({tag: steers(results, tag) for tag in success}),
    )


def macro_success(results: Results, key: str) -> str:
    """Mean over targets of one row of the steering table, with its interval where the run has one."""
    macro = results.find("steering.macro") or {}
    estimate = macro.get(key, macro.get("steered") if key == "success" else None)
    if estimate is not None and known(estimate[0]):
        return f"{percent(estimate[0])} {span(estimate[1], estimate[2], 0, factor=100)}".strip()
    values = list(results.by_language(f"steering.{key}").values())
    return percent(float(np.mean(values))) if values else "–"


def _fluent(results: Results) -> Claim:
    measured = results.by_language("steering.perplexity_ratio")
    ratios = [x for x in measured.values() if x > 0]
    fluent = {tag: is_fluent(results, tag) for tag in measured}
    mean = f"perplexity × {plain(float(np.exp(np.mean(np.log(ratios)))))} (geometric mean)" if ratios else ""
    untested = [tag for tag, yes in fluent.items() if yes is None]
    if untested:
        mean += f"; no test by so few answers, or without an interval, in {', '.join(untested)}"
    low, high = PERPLEXITY_BAND
    return Claim(
        title="Steered answers stay as fluent as native ones",
        control=f"{results.native_answers}; counts where the interval of perplexity lies within {low}–{high} × theirs "
        f"and distinct 4-grams are at least {DISTINCT_FLOOR} × theirs",
        result=mean,
        **holds_and_fails(fluent),
    )


def _more_than_script(results: Results) -> Claim:
    rows = {tag: row for tag, row in results.by_language("controls.script").items() if "share" in row}
    shares = [row["share"] for row in rows.values()]
    return Claim(
        title="The sets answer to more than the script",
        control="the same text in Latin letters, between native text and English text; counts where the interval of "
        "the script's share lies below 100 %",
        result=f"script's share: median {middle(shares, percent)} ({percent_range(shares)} over languages)"
        if rows
        else "",
        **holds_and_fails({tag: row["high"] < 1 for tag, row in rows.items() if known(row.get("high"))}),
    )


def _overlap(results: Results) -> Claim:
    names = ("lift_by_margins", "lead", "lead_low")
    lift, lead, low = (results.matrix(f"controls.overlap.{key}") for key in names)
    tested: dict[str, bool] = {}
    result = ""
    if lead is not None and low is not None:
        tags = results.languages
        upper = zip(*np.triu_indices(len(tags), 1), strict=True)
        pairs = sorted((pair for pair in upper if np.isfinite(low[pair])), key=lambda pair: -lead[pair])
        tested = {f"{tags[a]}–{tags[b]}": bool(low[a, b] > 0) for a, b in sorted(pairs)}
        listed = ", ".join(f"{tags[a]}–{tags[b]} {plain(float(lead[a, b]))}" for a, b in pairs[:NAMED_PAIRS])
        result = f"largest leads: {listed} (Jaccard index)" if pairs else ""
        if pairs and lift is not None and np.isfinite(lift[pairs[0]]):
            result += f"; the first shares {plain(float(lift[pairs[0]]))} × what tables with its margins do"
    return Claim(
        title="Two languages share more neurons than others do",
        control="what both share with the other languages, each set found in another half of the text; counts where "
        "the whole range of the lead over half-splits lies above 0",
        result=result,
        counts="pairs",
        **holds_and_fails(tested),
    )
