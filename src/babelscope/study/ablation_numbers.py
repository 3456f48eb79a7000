"""What switching off found, as the numbers of results.json and ablation.json."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from babelscope.ablation import UNITS, AblationTable
from babelscope.ablation.ablation_table import HarmEstimate
from babelscope.languages import Language
from babelscope.report.results import AblatedPart, Ablation, HarmInUnit, HarmInUnits, SetParts
from babelscope.report.results.ablation_record import EachControl, SomeControls, TriedRate
from babelscope.report.results.value_kinds import BoundedEstimate, tagged


def ablation_summary(table: AblationTable) -> Ablation:
    """One ablation table as numbers."""
    p = {control: tagged(table.p_values(control)) for control in table.draws}
    return Ablation(
        relative_harm=table.relative_harm.tolist(),
        bits_per_byte=table.bits_per_byte.tolist(),
        nats_per_token=table.harm("nats_per_token").tolist(),
        layer_matched=tagged(table.drawn_harm("layer_matched")),
        contribution_matched=tagged(table.drawn_harm("contribution_matched")),
        p={tag: max(values[tag] for values in p.values()) for tag in table.languages},
        p_by_control=EachControl(**p),
        p_adjusted=SomeControls(**{control: tagged(table.adjusted_p(control)) for control in table.draws}),
        pairing_p=table.pairing_p(),
        specificity=estimates(table.specificity()),
        own_hurt_most=tagged(table.hurt_most()),
        by_unit=by_unit(table),
        ratio_layer_matched=estimates(table.ratio("layer_matched")),
        ratio_contribution_matched=estimates(table.ratio("contribution_matched")),
        achieved_contribution=tagged(table.achieved_ratio),
        base_nats_per_token={losses.language: losses.nats_per_token for losses in table.base},
        base_bits_per_byte={losses.language: losses.bits_per_byte for losses in table.base},
        documents={losses.language: len(losses.nats) for losses in table.base},
        tokens={losses.language: int(losses.tokens.sum()) for losses in table.base},
        draws=len(next(iter(table.draws["layer_matched"].values()))),
        resamples=table.resamples,
        seed=table.seed,
    )


def estimates(by_tag: Mapping[Language, HarmEstimate]) -> dict[str, BoundedEstimate]:
    """Harms with their intervals, as the results have them."""
    return {tag: BoundedEstimate(*harm) for tag, harm in by_tag.items()}


def by_unit(table: AblationTable) -> HarmInUnits:
    """In each unit of harm: own less the largest other, with its interval, and the p of sets paired with texts."""
    return HarmInUnits(
        **{
            unit: HarmInUnit(
                specificity=estimates(table.specificity(unit)),
                own_hurt_most=tagged(table.hurt_most(unit)),
                pairing_p=table.pairing_p(unit),
            )
            for unit in UNITS
        }
    )


def ablation_results(table: AblationTable, to_mean: AblationTable, choice: Sequence[Mapping[str, Any]]) -> Ablation:
    """Both tables, and how top_rate was chosen."""
    return replace(
        ablation_summary(table),
        relative_harm_to_mean=to_mean.relative_harm.tolist(),
        specificity_to_mean=estimates(to_mean.specificity()),
        choice=[TriedRate(**row) for row in choice],
    )


def part_results(
    tables: Mapping[str, AblationTable], romanised: Mapping[str, Mapping[Language, AblationTable]]
) -> SetParts:
    """Every part of the sets, switched off by itself: its harm on every text, and on the own text in Latin letters.

    romanised: by part, and "whole" for the undivided sets; a table of one set and its own romanised text each.
    """
    return SetParts(
        **{name: part_numbers(table) for name, table in tables.items()},
        romanised={
            name: estimates({tag: table.own_interval()[tag] for tag, table in by_tag.items() if table.sizes[tag]})
            for name, by_tag in romanised.items()
        },
        romanised_bits_per_byte={tag: table.base[0].bits_per_byte for tag, table in romanised["whole"].items()},
    )


def part_numbers(table: AblationTable) -> AblatedPart:
    """One part of all sets; languages without a neuron in it have no numbers of their own."""
    full = [tag for tag in table.languages if table.sizes[tag]]
    drawn = table.drawn_harm("layer_matched")
    own, p, adjusted = table.own_interval(), table.p_values("layer_matched"), table.adjusted_p("layer_matched")
    leads = {unit: table.specificity(unit) for unit in UNITS}
    return AblatedPart(
        neurons=tagged(table.sizes),
        relative_harm=table.relative_harm.tolist(),
        own_harm=estimates({tag: own[tag] for tag in full}),
        layer_matched={tag: math.fsum(drawn[tag]) / len(drawn[tag]) for tag in full},
        p={tag: p[tag] for tag in full},
        p_adjusted={tag: adjusted[tag] for tag in full},
        by_unit=HarmInUnits(
            **{
                unit: HarmInUnit(specificity=estimates({tag: lead[tag] for tag in full}))
                for unit, lead in leads.items()
            }
        ),
        tokens={losses.language: int(losses.tokens.sum()) for losses in table.base},
    )
