"""Which findings hold: each claim with its control, its result and the languages in which it stands."""

import math
from itertools import combinations

import numpy as np

from babelscope.figures import Real
from babelscope.report.claim_form import LEVEL, Claim, holds_and_fails, middle, percent_range, to_array
from babelscope.report.harm_claims import exclusive_claim, own_language_claim, random_sets_claim
from babelscope.report.results import Results
from babelscope.report.results.selection_record import ScriptRetention
from babelscope.report.results.value_kinds import BoundedEstimate
from babelscope.report.wording import known, percent, plain, span, span_over
from babelscope.steering.sweeps.fluent_choice import LEAST_DISTINCT, LEAST_RATIO, MOST_RATIO

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


def native_answers(results: Results) -> str:
    """What the native ceiling is in this run, in words: continuations, or answers of a chat model."""
    chat = results.steered.chat
    if chat is None:
        return "the model's own continuations of native text"
    system = f", system prompt {chat.system!r}" if chat.system else ""
    return f"the model's own answers to messages in the target language, by its chat template{system}"


def leads(results: Results) -> dict[str, BoundedEstimate]:
    """Lead of a set over the other languages' sets of the other half of the text, with its range, where known."""
    return {tag: lead for tag, lead in results.measured(results.stability_lead).items() if all(map(known, lead))}


def steers(results: Results, tag: str) -> bool | None:
    """Whether steering succeeds more often than each control and half as often as native text; None untested."""
    steering = results.steered
    p, success, native = (results.measured(rates).get(tag) for rates in (steering.p, steering.success, steering.native))
    if p is None or success is None or native is None:
        return None
    return p <= LEVEL and success >= CEILING_SHARE * native


def strongest_control(results: Results, tag: str) -> float:
    """Highest success of the controls of steering: nothing, a random direction, another language's direction."""
    steering = results.steered
    rates = (results.measured(x).get(tag) for x in (steering.unsteered, steering.random, steering.other_language))
    return max((float(rate) for rate in rates if rate is not None), default=math.nan)


def is_fluent(results: Results, tag: str) -> bool | None:
    """Interval of the perplexity ratio inside the band and distinct-4 above the floor; False where it lies outside.

    None without an interval, and where it reaches over an end of the band: so few answers are no test.
    """
    interval = results.measured(results.steered.perplexity_interval).get(tag)
    distinct = results.measured(results.steered.distinct4_ratio).get(tag)
    if interval is None or distinct is None or not all(map(known, interval)):
        return None
    low, high = interval
    if distinct < LEAST_DISTINCT or high < LEAST_RATIO or low > MOST_RATIO:
        return False
    return True if low >= LEAST_RATIO and high <= MOST_RATIO else None


def _stable(results: Results) -> Claim:
    rows = [row for row in results.measured(results.stability).values() if all(map(known, row[:4]))]
    lead = leads(results)
    result = ""
    if rows:
        medians = [row.median for row in rows]
        result = f"Jaccard index of two halves: median {middle(medians, plain)} ({span_over(medians)} over languages)"
    if lead:
        medians = [values.estimate for values in lead.values()]
        result += f"; lead over the other languages' sets: median {middle(medians, plain)} ({span_over(medians)})"
    return Claim(
        title="The set of a language is found again in other text",
        control="the other languages' sets, found in the other half; counts where the whole range of the lead over "
        "half-splits lies above 0",
        result=result,
        **holds_and_fails({tag: values.low > 0 for tag, values in lead.items()}),
    )


def _steers(results: Results) -> Claim:
    success, result = results.measured(results.steered.success), ""
    if success:
        rates = success_of_trials(results)
        said = [
            f"{name} {macro_success(results, key)}"
            for key, name in (
                ("success", "steered"), ("native", "native text"), ("unsteered", "unsteered"), ("random", "random"),
                ("other_language", "other language's"),
            )
            if rates[key]
        ]  # fmt: skip
        result = ", ".join(said)
    return Claim(
        title="Adding the direction makes answers come in the target language",
        control="no steering, a random direction, another language's direction; counts where answers are right more "
        "often than in each (Fisher's exact test, p ≤ 0.05, corrected over targets) and half as often as native text",
        result=result,
        **holds_and_fails({tag: steers(results, tag) for tag in success}),
    )


def success_of_trials(results: Results) -> dict[str, dict[str, Real]]:
    """Success by target, where measured: steered (`success`), and of what steering is compared with."""
    steering = results.steered
    rates = {
        "success": steering.success,
        "native": steering.native,
        "unsteered": steering.unsteered,
        "random": steering.random,
        "other_language": steering.other_language,
        "neuron_arithmetic": steering.neuron_arithmetic,
    }
    return {name: results.measured(by_target) for name, by_target in rates.items()}


def macro_success(results: Results, key: str) -> str:
    """Mean over targets of one row of the steering table, with its interval where the run has one."""
    macro = results.steered.macro or {}
    mean = macro.get(key, macro.get("steered") if key == "success" else None)
    if mean is not None and known(mean.estimate):
        return f"{percent(mean.estimate)} {span(mean.low, mean.high, 0, factor=100)}".strip()
    values = list(success_of_trials(results).get(key, {}).values())
    return percent(float(np.mean(values))) if values else "–"


def _fluent(results: Results) -> Claim:
    measured = results.measured(results.steered.perplexity_ratio)
    ratios = [x for x in measured.values() if x > 0]
    fluent = {tag: is_fluent(results, tag) for tag in measured}
    mean = f"perplexity × {plain(float(np.exp(np.mean(np.log(ratios)))))} (geometric mean)" if ratios else ""
    untested = [tag for tag, yes in fluent.items() if yes is None]
    if untested:
        mean += f"; no test by so few answers, or without an interval, in {', '.join(untested)}"
    return Claim(
        title="Steered answers stay as fluent as native ones",
        control=f"{native_answers(results)}; counts where the interval of perplexity lies within "
        f"{LEAST_RATIO}–{MOST_RATIO} × theirs and distinct 4-grams are at least {LEAST_DISTINCT} × theirs",
        result=mean,
        **holds_and_fails(fluent),
    )


def _more_than_script(results: Results) -> Claim:
    rows = {
        tag: row for tag, row in results.measured(results.controlled.script).items() if isinstance(row, ScriptRetention)
    }
    shares = [row.share for row in rows.values()]
    return Claim(
        title="The sets answer to more than the script",
        control="the same text in Latin letters, between native text and English text; counts where the interval of "
        "the script's share lies below 100 %",
        result=f"script's share: median {middle(shares, percent)} ({percent_range(shares)} over languages)"
        if rows
        else "",
        **holds_and_fails({tag: row.high < 1 for tag, row in rows.items() if row.high is not None and known(row.high)}),
    )


def _overlap(results: Results) -> Claim:
    tested: dict[str, bool] = {}
    result, overlap = "", results.controlled.overlap
    if overlap is not None and overlap.lead is not None and overlap.lead_low is not None:
        lead, low, tags = to_array(overlap.lead), to_array(overlap.lead_low), results.languages
        lift = None if overlap.lift_by_margins is None else to_array(overlap.lift_by_margins)
        pairs = sorted(
            (pair for pair in combinations(range(len(tags)), 2) if np.isfinite(low[pair])), key=lambda pair: -lead[pair]
        )
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
