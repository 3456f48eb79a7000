"""What switching off found, as the numbers of results.json and ablation.json."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from babelscope.ablation import UNITS, AblationTable
from babelscope.languages import Language


def ablation_summary(table: AblationTable) -> dict[str, Any]:
    """One ablation table as numbers."""
    p = {control: table.p_values(control) for control in table.draws}
    return {
        "relative_harm": table.relative_harm.tolist(),
        "bits_per_byte": table.bits_per_byte.tolist(),
        "nats_per_token": table.harm("nats_per_token").tolist(),
        "layer_matched": table.drawn_harm("layer_matched"),
        "contribution_matched": table.drawn_harm("contribution_matched"),
        "p": {tag: max(values[tag] for values in p.values()) for tag in table.languages},
        "p_by_control": p,
        "p_adjusted": {control: table.adjusted_p(control) for control in table.draws},
        "pairing_p": table.pairing_p(),
        "specificity": table.specificity(),
        "own_hurt_most": table.hurt_most(),
        "by_unit": by_unit(table),
        "ratio_layer_matched": table.ratio("layer_matched"),
        "ratio_contribution_matched": table.ratio("contribution_matched"),
        "achieved_contribution": dict(table.achieved_ratio),
        "base_nats_per_token": {losses.language: losses.nats_per_token for losses in table.base},
        "base_bits_per_byte": {losses.language: losses.bits_per_byte for losses in table.base},
        "documents": {losses.language: len(losses.nats) for losses in table.base},
        "tokens": {losses.language: int(losses.tokens.sum()) for losses in table.base},
        "draws": len(next(iter(table.draws["layer_matched"].values()))),
        "resamples": table.resamples,
        "seed": table.seed,
    }


def by_unit(table: AblationTable) -> dict[str, dict[str, Any]]:
    """In each unit of harm: own less the largest other, with its interval, and the p of sets paired with texts."""
    return {
        unit: {
            "specificity": table.specificity(unit),
            "own_hurt_most": table.hurt_most(unit),
            "pairing_p": table.pairing_p(unit),
        }
        for unit in UNITS
    }


def ablation_results(
    table: AblationTable, to_mean: AblationTable, choice: Sequence[Mapping[str, float | str]]
) -> dict[str, Any]:
    """Both tables, and how top_rate was chosen."""
    return {
        **ablation_summary(table),
        "relative_harm_to_mean": to_mean.relative_harm.tolist(),
        "specificity_to_mean": to_mean.specificity(),
        "choice": [dict(row) for row in choice],
    }


def part_results(
    tables: Mapping[str, AblationTable], romanised: Mapping[str, Mapping[Language, AblationTable]]
) -> dict[str, Any]:
    """Every part of the sets, switched off by itself: its harm on every text, and on the own text in Latin letters.

    romanised: by part, and "whole" for the undivided sets; a table of one set and its own romanised text each.
    """
    return {
        **{name: part_numbers(table) for name, table in tables.items()},
        "romanised": {
            name: {tag: table.own_interval()[tag] for tag, table in found.items() if table.sizes[tag]}
            for name, found in romanised.items()
        },
        "romanised_bits_per_byte": {tag: table.base[0].bits_per_byte for tag, table in romanised["whole"].items()},
    }


def part_numbers(table: AblationTable) -> dict[str, Any]:
    """One part of all sets; languages without a neuron in it have no numbers of their own."""
    full = [tag for tag in table.languages if table.sizes[tag]]
    drawn = table.drawn_harm("layer_matched")
    own, p, adjusted = table.own_interval(), table.p_values("layer_matched"), table.adjusted_p("layer_matched")
    units = by_unit(table)
    return {
        "neurons": dict(table.sizes),
        "relative_harm": table.relative_harm.tolist(),
        "own_harm": {tag: own[tag] for tag in full},
        "layer_matched": {tag: math.fsum(drawn[tag]) / len(drawn[tag]) for tag in full},
        "p": {tag: p[tag] for tag in full},
        "p_adjusted": {tag: adjusted[tag] for tag in full},
        "by_unit": {
            unit: {"specificity": {tag: numbers["specificity"][tag] for tag in full}} for unit, numbers in units.items()
        },
        "tokens": {losses.language: int(losses.tokens.sum()) for losses in table.base},
    }
