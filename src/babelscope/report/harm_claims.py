"""Which findings about switching off hold: own text hurt most, in which units, by which part, more than random sets."""

import math
from collections.abc import Mapping

import numpy as np

from babelscope.controls.matched_sets import LEAST_MATCH
from babelscope.figures import Number
from babelscope.report.claim_form import LEVEL, Claim, holds_and_fails, middle, percent_range
from babelscope.report.results import Results
from babelscope.report.wording import harm_digits, known, p_value, percent, plain

CONTROLS = ("layer_matched", "contribution_matched")
HARM_UNITS = {"relative": "relative loss", "nats_per_token": "nats per token", "bits_per_byte": "bits per byte"}
"""What harm is counted in, as results.json and as a line name it."""


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


def pairing_holds(results: Results) -> bool | None:
    """Whether sets harm the text of their own language more than sets paired with texts at random; None untested."""
    p = results.find("ablation.pairing_p")
    return None if p is None or not known(p) else p <= LEVEL


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


def own_language_claim(results: Results) -> Claim:
    """Own text against every other text, judged in each unit of harm that the run has."""
    most = own_hurt_most(results)
    tested = specificity(results)
    result = f"own language hurt most in {sum(most.values())} of {len(most)}" if most else ""
    if tested:
        digits = harm_digits(values[0] for values in tested.values())
        listed = middle([values[0] for values in tested.values()], lambda x: percent(x, digits))
        everything = percent_range([values[0] for values in tested.values()], digits)
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
        **holds_and_fails(_in_every_unit(passed)),
    )


def exclusive_claim(results: Results) -> Claim:
    """The same of the part of each set that no other language has."""
    passed = {unit: _leads_in(results, "ablation.parts.exclusive", unit) for unit in HARM_UNITS}
    tested = _in_every_unit(passed)
    own = results.by_language("ablation.parts.exclusive.own_harm")
    romanised = results.by_language("ablation.parts.romanised.whole")
    result = ""
    if tested:
        sizes = results.by_language("ablation.parts.exclusive.neurons")
        alone = [sizes[tag] / results.tree["neurons"][tag] for tag in own if results.tree["neurons"].get(tag)]
        digits = harm_digits(values[0] for values in own.values())
        harms = middle([values[0] for values in own.values()], lambda x: percent(x, digits))
        result = f"{middle(alone, percent)} of a set (median) is exclusive and harms its own text by {harms}"
        if romanised:
            latin = middle([values[0] for values in romanised.values()], lambda x: percent(x, 1))
            result += f"; whole sets harm their text in Latin letters by {latin} (median of {len(romanised)})"
    return Claim(
        title="The neurons that no other language has harm their own language most",
        control="text of every other language; counts where the interval of (own − largest other) lies above 0, in "
        f"{_listed_units(passed)}. What a set shares with its script and with its family is switched off apart",
        result=result + _said_units(passed),
        **holds_and_fails(tested),
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


def random_sets_claim(results: Results, which: int, name: str) -> Claim:
    """Harm of the sets among that of a control's random sets."""
    key = CONTROLS[which]
    listed = {tag: adjusted_p(results, which, tag) for tag in results.languages}
    passed = {tag: beats_draws(results, which, tag) for tag in results.languages}
    short = unmatched(results) if which == 1 else {}
    ratios = results.by_language(f"ablation.ratio_{key}")
    result = ""
    if ratios:
        result = f"{middle([values[0] for values in ratios.values()], lambda x: plain(x, 1))} × their harm (median)"
    if any(p is not None for p in listed.values()):
        result += f"{'; ' if result else ''}median corrected p {middle(list(listed.values()), p_value)}"
        matched = [tag for tag, p in listed.items() if p is not None and tag not in short]
        if matched and not any(yes is not None for yes in passed.values()):
            result += "; too few draws for p ≤ 0.05"
    if short:
        said = ", ".join(f"{tag} {plain(share)}" for tag, share in short.items())
        result += f"{'; ' if result else ''}unmatched, at a share of the contribution of: {said}"
    return Claim(
        title=f"A set matters more to its language than {name}",
        control=f"{_draws(results, key)}; counts where p ≤ 0.05, corrected over languages. It says that the neurons "
        "matter, not that they are of a language",
        result=result,
        **holds_and_fails({tag: passed[tag] for tag, p in listed.items() if p is not None}),
    )


def _draws(results: Results, key: str) -> str:
    n = {len(draws) for draws in results.by_language(f"ablation.{key}").values()}
    name = key.replace("_", "-")
    return f"{min(n)} {name} sets a language" if len(n) == 1 else f"{name} sets"
