"""Which findings hold: each claim with its control, its result and the languages in which it stands."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from babelscope.figures import PERPLEXITY_BAND, Number
from babelscope.report.results import Results
from babelscope.report.wording import harm_digits, known, p_value, percent, plain, span, span_over

LEVEL = 0.05 + 1e-9
"""Largest p-value that counts; the rank p of 19 draws is exactly 1/20."""
CONTROLS = ("layer_matched", "contribution_matched")
DISTINCT_FLOOR = 0.8
"""Least share of distinct 4-grams, steered over native, that counts as fluent."""


@dataclass(frozen=True)
class Claim:
    """A finding beside its control."""

    title: str
    """The finding, as a sentence that can be false."""
    control: str
    """What it was compared with, and when it counts as holding in a language."""
    result: str
    """Estimate with its interval; empty where not measured."""
    holds: tuple[str, ...] = ()
    """Languages in which it holds."""
    fails: tuple[str, ...] = ()
    """Languages in which it was tested and does not hold."""
    counts: str = "languages"
    """What is counted: languages or pairs."""

    @property
    def verdict(self) -> str:
        """`holds`, `holds in part`, `does not hold`, `no test` (measured, without an interval) or `not measured`."""
        if not self.holds and not self.fails:
            return "no test" if self.result else "not measured"
        return "holds" if not self.fails else "holds in part" if self.holds else "does not hold"

    @property
    def tally(self) -> str:
        """How many of how many."""
        n = len(self.holds) + len(self.fails)
        return f"{len(self.holds)} of {n} {self.counts}" if n else ""


def claims(results: Results) -> list[Claim]:
    """The findings of a run, in the order of the page."""
    return [
        _stable(results),
        _own_language(results),
        _beats_draws(results, 0, "random neurons of the same layers"),
        _beats_draws(results, 1, "random neurons of the same layers and contribution"),
        _steers(results),
        _fluent(results),
        _more_than_script(results),
        _overlap(results),
    ]


def p_pair(results: Results, tag: str) -> tuple[Number | None, Number | None]:
    """p against layer-matched and contribution-matched draws; a single number is the larger and stands for both."""
    p = results.by_language("ablation.p").get(tag)
    if isinstance(p, list):
        return p[0], p[1]
    apart = (results.by_language(f"ablation.p_by_control.{key}") for key in CONTROLS)
    layer, contribution = (found.get(tag, p) for found in apart)
    return layer, contribution


def beats_draws(results: Results, which: int, tag: str) -> bool | None:
    """Whether p against the draws of a control counts; None without a p, or where so few draws can not reach it."""
    p = p_pair(results, tag)[which]
    draws = results.by_language(f"ablation.{CONTROLS[which]}").get(tag)
    if p is None or (draws and 1 / (len(draws) + 1) > LEVEL):
        return None
    return p <= LEVEL


def specificity(results: Results) -> dict[str, list[Number]]:
    """Own harm less the largest harm to another language, with its interval, where all three are known."""
    found = results.by_language("ablation.specificity")
    return {tag: values for tag, values in found.items() if all(map(known, values))}


def own_hurt_most(results: Results) -> dict[str, bool]:
    """Whether the set's own language is the one most harmed, by language, where the whole row is known."""
    harm = results.matrix("ablation.relative_harm")
    assert harm is not None
    return {
        tag: bool(row[at] > np.delete(row, at).max(initial=-math.inf))
        for at, (tag, row) in enumerate(zip(results.languages, harm, strict=True))
        if np.isfinite(row).all()
    }


def strongest_control(results: Results, tag: str) -> float:
    """Highest success of the controls of steering: nothing, a random direction, another language's direction."""
    rates = [results.by_language(f"steering.{key}").get(tag) for key in ("unsteered", "random", "other_language")]
    return max((float(rate) for rate in rates if rate is not None), default=math.nan)


def is_fluent(results: Results, tag: str) -> bool | None:
    """Perplexity ratio inside the band and distinct-4 above the floor; None where either is missing."""
    perplexity = results.by_language("steering.perplexity_ratio").get(tag)
    distinct = results.by_language("steering.distinct4_ratio").get(tag)
    if perplexity is None or distinct is None:
        return None
    return PERPLEXITY_BAND[0] <= perplexity <= PERPLEXITY_BAND[1] and distinct >= DISTINCT_FLOOR


def _split(tested: Mapping[str, bool]) -> dict[str, Any]:
    return {
        "holds": tuple(tag for tag, stands in tested.items() if stands),
        "fails": tuple(tag for tag, stands in tested.items() if not stands),
    }


def _middle(values: Sequence[Number | None], say: Callable[[Number], str]) -> str:
    finite = [value for value in values if value is not None and known(value)]
    return say(float(np.median(finite))) if finite else "–"


def _range(shares: Sequence[Number | None], digits: int = 0) -> str:
    return f"{span_over([100 * x for x in shares if x is not None], digits)} %"


def _stable(results: Results) -> Claim:
    rows = {tag: values for tag, values in results.by_language("stability").items() if all(map(known, values[:4]))}
    result = ""
    if rows:
        medians = [values[0] for values in rows.values()]
        result = (
            f"Jaccard index of two halves: median {_middle(medians, plain)} ({span_over(medians)} over languages), "
            f"by chance {_middle([values[3] for values in rows.values()], plain)}"
        )
    return Claim(
        title="The set of a language is found again in other text",
        control="sets of that size drawn by chance; counts where the whole range over half-splits lies above chance",
        result=result,
        **_split({tag: values[1] > values[3] for tag, values in rows.items()}),
    )


def _own_language(results: Results) -> Claim:
    most = own_hurt_most(results)
    tested = specificity(results)
    result = f"own language hurt most in {sum(most.values())} of {len(most)}" if most else ""
    if tested:
        digits = harm_digits(values[0] for values in tested.values())
        listed = _middle([values[0] for values in tested.values()], lambda x: percent(x, digits))
        everything = _range([values[0] for values in tested.values()], digits)
        result += f"; lead over the next language: median {listed} ({everything} over languages)"
    elif most:
        result += "; no interval in this run"
    return Claim(
        title="Switching a set off harms its own language most",
        control="text of every other language; counts where the interval of (own − largest other) lies above 0",
        result=result,
        **_split({tag: values[1] > 0 for tag, values in tested.items()}),
    )


def _beats_draws(results: Results, which: int, name: str) -> Claim:
    key = CONTROLS[which]
    found = {tag: p_pair(results, tag)[which] for tag in results.languages}
    passed = {tag: beats_draws(results, which, tag) for tag in results.languages}
    ratios = results.by_language(f"ablation.ratio_{key}")
    result = ""
    if any(p is not None for p in found.values()):
        result = f"median p {_middle(list(found.values()), p_value)}"
        holm = results.by_language("ablation.p_holm") if key == "contribution_matched" else {}
        if holm:
            after = sum(p <= LEVEL for p in holm.values())
            result += f"; after Holm's correction p ≤ 0.05 in {after} of {len(holm)}"
        if ratios:
            ratio = _middle([values[0] for values in ratios.values()], lambda x: plain(x, 1))
            result = f"{ratio} × their harm (median over languages); {result}"
        if not any(yes is not None for yes in passed.values()):
            result += "; too few draws for p ≤ 0.05"
    return Claim(
        title=f"A set harms its language more than {name} do",
        control=f"{_draws(results, key)}; counts where p ≤ 0.05",
        result=result,
        **_split({tag: yes for tag, yes in passed.items() if yes is not None}),
    )


def _draws(results: Results, key: str) -> str:
    n = {len(draws) for draws in results.by_language(f"ablation.{key}").values()}
    name = key.replace("_", "-")
    return f"{min(n)} {name} sets a language" if len(n) == 1 else f"{name} sets"


def _steers(results: Results) -> Claim:
    success = results.by_language("steering.success")
    ends = {
        tag: pair for tag, pair in results.by_language("steering.success_interval").items() if all(map(known, pair))
    }
    tested = {
        tag: ends[tag][0] > strongest_control(results, tag)
        for tag in success
        if tag in ends and known(strongest_control(results, tag))
    }
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
        control="no steering, a random direction, another language's direction; counts where the interval lies above "
        "all three",
        result=result,
        **_split(tested),
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
    ratios = [x for x in results.by_language("steering.perplexity_ratio").values() if x > 0]
    fluent = {tag: is_fluent(results, tag) for tag in results.languages}
    mean = f"perplexity × {plain(float(np.exp(np.mean(np.log(ratios)))))} (geometric mean)" if ratios else ""
    low, high = PERPLEXITY_BAND
    return Claim(
        title="Steered answers stay as fluent as native ones",
        control=f"{results.native_answers}; counts where perplexity is {low}–{high} × theirs and "
        f"distinct 4-grams at least {DISTINCT_FLOOR} × theirs",
        result=mean,
        **_split({tag: yes for tag, yes in fluent.items() if yes is not None}),
    )


def _more_than_script(results: Results) -> Claim:
    rows = {tag: row for tag, row in results.by_language("controls.script").items() if "share" in row}
    shares = [row["share"] for row in rows.values()]
    return Claim(
        title="The sets answer to more than the script",
        control="the same text in Latin letters, between native text and English text; counts where the interval of "
        "the script's share lies below 100 %",
        result=f"script's share: median {_middle(shares, percent)} ({_range(shares)} over languages)" if rows else "",
        **_split({tag: row["high"] < 1 for tag, row in rows.items() if known(row.get("high"))}),
    )


def _overlap(results: Results) -> Claim:
    lift, q = results.matrix("controls.overlap.lift"), results.matrix("controls.overlap.q")
    tested: dict[str, bool] = {}
    result = ""
    if lift is not None and q is not None:
        upper = zip(*np.triu_indices(len(results.languages), 1), strict=True)
        pairs = [(a, b) for a, b in upper if np.isfinite(q[a, b]) and np.isfinite(lift[a, b])]
        above = (q <= LEVEL) & (lift > 1)
        tested = {f"{results.languages[a]}–{results.languages[b]}": bool(above[a, b]) for a, b in pairs}
        result = f"median lift {_middle([float(lift[a, b]) for a, b in pairs], plain)} × chance"
    return Claim(
        title="Two languages share more neurons than chance",
        control="the same number drawn in the same layers; counts where lift > 1 and q ≤ 0.05 over all pairs",
        result=result,
        counts="pairs",
        **_split(tested),
    )
