"""Which findings hold: each claim with its control, its result and the languages in which it stands."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from babelscope.controls.matched_sets import LEAST_MATCH
from babelscope.figures import PERPLEXITY_BAND, Number
from babelscope.report.results import Results
from babelscope.report.wording import harm_digits, known, p_value, percent, plain, span, span_over

LEVEL = 0.05 + 1e-9
"""Largest p-value that counts; the rank p of 19 draws is exactly 1/20."""
CONTROLS = ("layer_matched", "contribution_matched")
DISTINCT_FLOOR = 0.8
"""Least share of distinct 4-grams, steered over native, that counts as fluent."""
HARM_UNITS = {"relative": "relative loss", "nats_per_token": "nats per token", "bits_per_byte": "bits per byte"}
"""What harm is counted in, as results.json and as a line name it."""
NAMED_PAIRS = 3
"""Pairs of languages that a line names."""
CEILING_SHARE = 0.5
"""Least success over that of native text that counts as steering: an effect can be certain and small."""


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
        _exclusive(results),
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


def adjusted_p(results: Results, which: int, tag: str) -> Number | None:
    """p against the draws of a control, corrected over all languages; None where the run did not measure it."""
    return results.by_language(f"ablation.p_adjusted.{CONTROLS[which]}").get(tag)


def beats_draws(results: Results, which: int, tag: str) -> bool | None:
    """Whether the corrected p counts; None without one, or where so few draws or no matched control can reach it."""
    p = adjusted_p(results, which, tag)
    if which == 1 and tag in unmatched(results):
        return None
    draws = results.by_language(f"ablation.{CONTROLS[which]}").get(tag)
    if p is None or (draws and 1 / (len(draws) + 1) > LEVEL):
        return None
    return p <= LEVEL


def unmatched(results: Results) -> dict[str, Number]:
    """Languages whose contribution-matched sets write less than they should, with the share that they reach."""
    shares = results.by_language("ablation.achieved_contribution")
    return {tag: share for tag, share in shares.items() if share < LEAST_MATCH}


def leads(results: Results) -> dict[str, list[Number]]:
    """Lead of a set over the other languages' sets of the other half of the text, with its range, where known."""
    rows = results.by_language("stability_lead")
    return {tag: values for tag, values in rows.items() if all(map(known, values))}


def pairing_holds(results: Results) -> bool | None:
    """Whether sets harm the text of their own language more than sets paired with texts at random; None untested."""
    p = results.find("ablation.pairing_p")
    return None if p is None or not known(p) else p <= LEVEL


def steers(results: Results, tag: str) -> bool | None:
    """Whether steering succeeds more often than each control and half as often as native text; None untested."""
    p = results.by_language("steering.p").get(tag)
    success, native = (results.by_language(f"steering.{key}").get(tag) for key in ("success", "native"))
    if p is None or success is None or native is None:
        return None
    return p <= LEVEL and success >= CEILING_SHARE * native


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
    lead = leads(results)
    result = ""
    if rows:
        medians = [values[0] for values in rows.values()]
        result = f"Jaccard index of two halves: median {_middle(medians, plain)} ({span_over(medians)} over languages)"
    if lead:
        medians = [values[0] for values in lead.values()]
        result += f"; lead over the other languages' sets: median {_middle(medians, plain)} ({span_over(medians)})"
    return Claim(
        title="The set of a language is found again in other text",
        control="the other languages' sets, found in the other half; counts where the whole range of the lead over "
        "half-splits lies above 0",
        result=result,
        **_split({tag: values[1] > 0 for tag, values in lead.items()}),
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
    paired = pairing_holds(results)
    if paired is not None:
        result += f"; sets paired with texts at random: p {p_value(results.find('ablation.pairing_p'))}"
    passed = {unit: _leads_in(results, "ablation", unit) for unit in HARM_UNITS}
    if not any(passed.values()):
        passed = {"relative": {tag: values[1] > 0 and paired is not False for tag, values in tested.items()}}
    return Claim(
        title="Switching a set off harms its own language most",
        control="text of every other language, and sets paired with texts at random; counts where the interval of "
        f"(own − largest other) lies above 0 and the pairing's p ≤ 0.05, in {_listed_units(passed)}",
        result=result + _said_units(passed),
        **_split(_in_every_unit(passed)),
    )


def _exclusive(results: Results) -> Claim:
    passed = {unit: _leads_in(results, "ablation.parts.exclusive", unit) for unit in HARM_UNITS}
    tested = _in_every_unit(passed)
    own = results.by_language("ablation.parts.exclusive.own_harm")
    romanised = results.by_language("ablation.parts.romanised.whole")
    result = ""
    if tested:
        sizes = results.by_language("ablation.parts.exclusive.neurons")
        alone = [sizes[tag] / results.tree["neurons"][tag] for tag in own if results.tree["neurons"].get(tag)]
        digits = harm_digits(values[0] for values in own.values())
        harms = _middle([values[0] for values in own.values()], lambda x: percent(x, digits))
        result = f"{_middle(alone, percent)} of a set (median) is exclusive and harms its own text by {harms}"
        if romanised:
            latin = _middle([values[0] for values in romanised.values()], lambda x: percent(x, 1))
            result += f"; whole sets harm their text in Latin letters by {latin} (median of {len(romanised)})"
    return Claim(
        title="The neurons that no other language has harm their own language most",
        control="text of every other language; counts where the interval of (own − largest other) lies above 0, in "
        f"{_listed_units(passed)}. What a set shares with its script and with its family is switched off apart",
        result=result + _said_units(passed),
        **_split(tested),
    )


def _leads_in(results: Results, place: str, unit: str) -> dict[str, bool]:
    """Whether own harm leads in one unit, by language; the pairing's p counts where it was measured."""
    found = results.by_language(f"{place}.by_unit.{unit}.specificity")
    p = results.find(f"{place}.by_unit.{unit}.pairing_p")
    paired = p is None or not known(p) or p <= LEVEL
    return {tag: values[1] > 0 and paired for tag, values in found.items() if all(map(known, values))}


def _in_every_unit(passed: Mapping[str, Mapping[str, bool]]) -> dict[str, bool]:
    tags = dict.fromkeys(tag for found in passed.values() for tag in found)
    return {tag: all(found.get(tag, True) for found in passed.values()) for tag in tags}


def _listed_units(passed: Mapping[str, Mapping[str, bool]]) -> str:
    return ", ".join(HARM_UNITS[unit] for unit in passed)


def _said_units(passed: Mapping[str, Mapping[str, bool]]) -> str:
    """In how many languages each unit says so, and the languages in which the units differ."""
    if len(passed) < 2 or not any(passed.values()):
        return ""
    counted = ", ".join(f"{HARM_UNITS[unit]} {sum(found.values())}" for unit, found in passed.items())
    apart = {
        tag: [HARM_UNITS[unit] for unit, found in passed.items() if found.get(tag)]
        for tag, everywhere in _in_every_unit(passed).items()
        if not everywhere
    }
    some = ", ".join(f"{tag} in {' and '.join(units)}" for tag, units in apart.items() if units)
    return f"; holds by {counted} of {len(_in_every_unit(passed))}" + (f"; only {some}" if some else "")


def _beats_draws(results: Results, which: int, name: str) -> Claim:
    key = CONTROLS[which]
    listed = {tag: adjusted_p(results, which, tag) for tag in results.languages}
    passed = {tag: beats_draws(results, which, tag) for tag in results.languages}
    ratios = results.by_language(f"ablation.ratio_{key}")
    result = ""
    if ratios:
        result = f"{_middle([values[0] for values in ratios.values()], lambda x: plain(x, 1))} × their harm (median)"
    if any(p is not None for p in listed.values()):
        result += f"{'; ' if result else ''}median corrected p {_middle(list(listed.values()), p_value)}"
        if not any(yes is not None for yes in passed.values()):
            result += "; no test, by too few draws for p ≤ 0.05 or by controls that are not matched"
    if which == 1 and (short := unmatched(results)):
        said = ", ".join(f"{tag} {plain(share)}" for tag, share in short.items())
        result += f"{'; ' if result else ''}unmatched, at a share of the contribution of: {said}"
    return Claim(
        title=f"A set matters more to its language than {name}",
        control=f"{_draws(results, key)}; counts where p ≤ 0.05, corrected over languages. It says that the neurons "
        "matter, not that they are of a language",
        result=result,
        **_split({tag: yes for tag, yes in passed.items() if yes is not None}),
    )


def _draws(results: Results, key: str) -> str:
    n = {len(draws) for draws in results.by_language(f"ablation.{key}").values()}
    name = key.replace("_", "-")
    return f"{min(n)} {name} sets a language" if len(n) == 1 else f"{name} sets"


def _steers(results: Results) -> Claim:
    success = results.by_language("steering.success")
    tested = {tag: yes for tag in success if (yes := steers(results, tag)) is not None}
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
        **_split(tested),
    )
