"""Which findings about switching off hold: own text hurt most, in which units, by which part, more than random sets."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from babelscope.controls.matched_sets import LEAST_MATCH
from babelscope.figures import Real
from babelscope.report.claim_form import LEVEL, Claim, holds_and_fails, middle, percent_range, to_array
from babelscope.report.results import AblatedPart, HarmInUnit, HarmInUnits, Results, SetParts
from babelscope.report.results.ablation_record import SomeControls
from babelscope.report.results.value_kinds import BoundedEstimate
from babelscope.report.wording import harm_digits, known, p_value, percent, plain

RELATIVE = "relative loss"


class RandomSets(NamedTuple):
    """What a run measured of one kind of random sets; by language, without those that were not measured."""

    name: str
    draws: dict[str, Sequence[Real]]
    """Own-language harm of each random set."""
    ratio: dict[str, BoundedEstimate]
    """Own-language harm of the set over the mean of theirs."""
    adjusted_p: dict[str, Real]
    """p against them, corrected over all languages."""


def random_sets(results: Results) -> tuple[RandomSets, RandomSets]:
    """Layer-matched and contribution-matched random sets."""
    ablation, adjusted = results.ablation, results.ablation.p_adjusted or SomeControls()
    kinds = (
        ("layer-matched", ablation.layer_matched, ablation.ratio_layer_matched, adjusted.layer_matched),
        (
            "contribution-matched",
            ablation.contribution_matched,
            ablation.ratio_contribution_matched,
            adjusted.contribution_matched,
        ),
    )
    layer, contribution = (
        RandomSets(name, results.measured(draws), results.measured(ratio), results.measured(p))
        for name, draws, ratio, p in kinds
    )
    return layer, contribution


def p_pair(results: Results, tag: str) -> tuple[Real | None, Real | None]:
    """p against layer-matched and contribution-matched draws; a single number is the larger and stands for both."""
    p, apart = results.measured(results.ablation.p).get(tag), results.ablation.p_by_control
    if isinstance(p, tuple):
        layer, contribution = (value if known(value) else None for value in p)
        return layer, contribution
    if apart is None:
        return p, p
    return results.measured(apart.layer_matched).get(tag, p), results.measured(apart.contribution_matched).get(tag, p)


def adjusted_p(results: Results, which: int, tag: str) -> Real | None:
    """p against the draws of a control, corrected over all languages; None where the run did not measure it."""
    return random_sets(results)[which].adjusted_p.get(tag)


def beats_draws(results: Results, which: int, tag: str) -> bool | None:
    """Whether the corrected p counts; None without one, or where so few draws or no matched control can reach it."""
    p = adjusted_p(results, which, tag)
    if which == 1 and tag in unmatched(results):
        return None
    draws = random_sets(results)[which].draws.get(tag)
    if p is None or (draws and 1 / (len(draws) + 1) > LEVEL):
        return None
    return p <= LEVEL


def unmatched(results: Results) -> dict[str, Real]:
    """Languages whose contribution-matched sets write less than they should, with the share that they reach."""
    shares = results.measured(results.ablation.achieved_contribution)
    return {tag: share for tag, share in shares.items() if share < LEAST_MATCH}


def pairing_holds(results: Results) -> bool | None:
    """Whether sets harm the text of their own language more than sets paired with texts at random; None untested."""
    p = results.ablation.pairing_p
    return None if p is None or not known(p) else p <= LEVEL


def specificity(results: Results) -> dict[str, BoundedEstimate]:
    """Own harm less the largest harm to another language, with its interval, where all three are known."""
    return {tag: lead for tag, lead in results.measured(results.ablation.specificity).items() if all(map(known, lead))}


def own_hurt_most(results: Results) -> dict[str, bool]:
    """Whether the set's own language is the one most harmed, by language, where the whole row is known."""
    return {
        tag: bool(row[at] > np.delete(row, at).max(initial=-math.inf))
        for at, (tag, row) in enumerate(zip(results.languages, to_array(results.ablation.relative_harm), strict=True))
        if np.isfinite(row).all()
    }


def own_language_claim(results: Results) -> Claim:
    """Own text against every other text, judged in each unit of harm that the run has."""
    most = own_hurt_most(results)
    tested = specificity(results)
    result = f"own language hurt most in {sum(most.values())} of {len(most)}" if most else ""
    if tested:
        estimates = [lead.estimate for lead in tested.values()]
        digits = harm_digits(estimates)
        median, ends = middle(estimates, lambda x: percent(x, digits)), percent_range(estimates, digits)
        result += f"; lead over the next language: median {median} ({ends} over languages)"
    elif most:
        result += "; no interval in this run"
    paired = pairing_holds(results)
    if paired is not None:
        result += f"; sets paired with texts at random: p {p_value(results.ablation.pairing_p)}"
    passed = _leads_by_unit(results, results.ablation.by_unit)
    if not any(passed.values()):
        passed = {RELATIVE: {tag: lead.low > 0 and paired is not False for tag, lead in tested.items()}}
    return Claim(
        title="Switching a set off harms its own language most",
        control="text of every other language, and sets paired with texts at random; counts where the interval of "
        f"(own − largest other) lies above 0 and the pairing's p ≤ 0.05, in {_listed_units(passed)}",
        result=result + _said_units(passed),
        **holds_and_fails(_in_every_unit(passed)),
    )


def exclusive_claim(results: Results) -> Claim:
    """The same of the part of each set that no other language has."""
    parts = results.ablation.parts or SetParts()
    part = parts.exclusive or AblatedPart(neurons={}, relative_harm=())
    passed = _leads_by_unit(results, part.by_unit)
    tested = _in_every_unit(passed)
    romanised = results.measured((parts.romanised or {}).get("whole"))
    result = ""
    if tested:
        own, sizes = results.measured(part.own_harm), results.measured(part.neurons)
        shares = [sizes[tag] / results.neurons[tag] for tag in own if results.neurons[tag]]
        digits = harm_digits(harm.estimate for harm in own.values())
        harms = middle([harm.estimate for harm in own.values()], lambda x: percent(x, digits))
        result = f"{middle(shares, percent)} of a set (median) is exclusive and harms its own text by {harms}"
        if romanised:
            latin = middle([harm.estimate for harm in romanised.values()], lambda x: percent(x, 1))
            result += f"; whole sets harm their text in Latin letters by {latin} (median of {len(romanised)})"
    return Claim(
        title="The neurons that no other language has harm their own language most",
        control="text of every other language; counts where the interval of (own − largest other) lies above 0, in "
        f"{_listed_units(passed)}. What a set shares with its script and with its family is switched off apart",
        result=result + _said_units(passed),
        **holds_and_fails(tested),
    )


def _leads_by_unit(results: Results, by_unit: HarmInUnits | None) -> dict[str, dict[str, bool]]:
    """Whether own harm leads, by unit and language; the pairing's p counts where it was measured."""
    units = by_unit or HarmInUnits()
    return {
        RELATIVE: _leads(results, units.relative),
        "nats per token": _leads(results, units.nats_per_token),
        "bits per byte": _leads(results, units.bits_per_byte),
    }


def _leads(results: Results, verdict: HarmInUnit | None) -> dict[str, bool]:
    verdict = verdict or HarmInUnit()
    paired = verdict.pairing_p is None or not known(verdict.pairing_p) or verdict.pairing_p <= LEVEL
    leads = results.measured(verdict.specificity)
    return {tag: lead.low > 0 and paired for tag, lead in leads.items() if all(map(known, lead))}


def _in_every_unit(passed: Mapping[str, Mapping[str, bool]]) -> dict[str, bool]:
    tags = dict.fromkeys(tag for found in passed.values() for tag in found)
    return {tag: all(found.get(tag, True) for found in passed.values()) for tag in tags}


def _listed_units(passed: Mapping[str, Mapping[str, bool]]) -> str:
    return ", ".join(passed)


def _said_units(passed: Mapping[str, Mapping[str, bool]]) -> str:
    """In how many languages each unit says so, and the languages in which the units differ."""
    if len(passed) < 2 or not any(passed.values()):
        return ""
    counted = ", ".join(f"{unit} {sum(found.values())}" for unit, found in passed.items())
    apart = {
        tag: [unit for unit, found in passed.items() if found.get(tag)]
        for tag, everywhere in _in_every_unit(passed).items()
        if not everywhere
    }
    some = ", ".join(f"{tag} in {' and '.join(units)}" for tag, units in apart.items() if units)
    return f"; holds by {counted} of {len(_in_every_unit(passed))}" + (f"; only {some}" if some else "")


def random_sets_claim(results: Results, which: int, name: str) -> Claim:
    """Harm of the sets among that of a control's random sets."""
    control = random_sets(results)[which]
    listed = {tag: adjusted_p(results, which, tag) for tag in results.languages}
    passed = {tag: beats_draws(results, which, tag) for tag in results.languages}
    short = unmatched(results) if which == 1 else {}
    result = ""
    if control.ratio:
        ratios = [ratio.estimate for ratio in control.ratio.values()]
        result = f"{middle(ratios, lambda x: plain(x, 1))} × their harm (median)"
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
        control=f"{_draws(control)}; counts where p ≤ 0.05, corrected over languages. It says that the neurons "
        "matter, not that they are of a language",
        result=result,
        **holds_and_fails({tag: passed[tag] for tag, p in listed.items() if p is not None}),
    )


def _draws(control: RandomSets) -> str:
    n = {len(draws) for draws in control.draws.values()}
    return f"{min(n)} {control.name} sets a language" if len(n) == 1 else f"{control.name} sets"
