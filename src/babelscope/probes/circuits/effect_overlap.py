"""Whether two languages, or two tasks, use the same heads or neurons."""

from typing import NamedTuple

import numpy as np

from babelscope.axes import Int64
from babelscope.controls import rank_p
from babelscope.errors import SelectionError
from babelscope.languages import Language
from babelscope.probes.circuits.effect_maps import UnitEffects
from babelscope.probes.concepts.concept_neurons import permute_within
from babelscope.probes.probe_evidence import SiteEvidence


class EffectOverlap(NamedTuple):
    """Whether the strongest units of two effect maps are the same ones."""

    task: str
    languages: tuple[Language, Language]
    strongest: int
    shared: int
    expected: float
    """Shared on average with units permuted within layers: what the same course over layers gives."""
    p: float
    correlation: float
    """Spearman's, over all units."""
    correlation_p: float
    draws: int
    seed: int

    def rows(self) -> list[SiteEvidence]:
        """Two rows: units shared, and the correlation of all effects."""
        shared = {"language": self.languages[0], "against": self.languages[1], "draws": self.draws, "seed": self.seed}
        control = "units permuted within layers"
        return [
            SiteEvidence(
                claim=f"{self.task}: strongest units shared by two languages",
                control=control,
                n=self.strongest,
                estimate=self.shared,
                p=self.p,
                null=self.expected,
                note="n strongest units of each",
                **shared,
            ),
            SiteEvidence(
                claim=f"{self.task}: rank correlation of the effects of all units in two languages",
                control=control,
                n=self.strongest,
                estimate=self.correlation,
                p=self.correlation_p,
                **shared,
            ),
        ]


def compare_effects(
    first: UnitEffects, second: UnitEffects, *, strongest: int = 10, draws: int = 999, seed: int = 0
) -> EffectOverlap:
    """Overlap of the strongest units of two effect maps, and the rank correlation of all, against permuted units.

    The second map's units are permuted within each layer, so that layers that matter in every task are no agreement.
    Raises SelectionError for maps of different units.
    """
    if first.units != second.units or first.at != second.at:
        raise SelectionError(
            "two maps of different units came; expected the same units at one site; measure both alike"
        )
    count, rng = min(strongest, len(first.units)), np.random.default_rng(seed)
    layers = np.array([layer for layer, _ in first.units])
    first_rank, rank = (ranks_of(effects) for effects in (first, second))
    permuted = [rank[permute_within(layers, rng)] for _ in range(draws)]
    shared, *null_shared = (
        float(((first_rank < count) & (other_rank < count)).sum()) for other_rank in (rank, *permuted)
    )
    # Pearson's correlation of ranks is Spearman's.
    rho, *null_rho = (float(np.corrcoef(first_rank, other_rank)[0, 1]) for other_rank in (rank, *permuted))
    task = first.task if first.task == second.task else f"{first.task} and {second.task}"
    return EffectOverlap(
        task=task,
        languages=(first.language, second.language),
        strongest=count,
        shared=int(shared),
        expected=float(np.mean(null_shared)),
        p=rank_p(shared, null_shared),
        correlation=rho,
        correlation_p=rank_p(rho, null_rho),
        draws=draws,
        seed=seed,
    )


def ranks_of(effects: UnitEffects) -> Int64[np.ndarray, " unit"]:
    """0 for the strongest; ties by place."""
    return np.argsort(np.argsort(-effects.effect.numpy(), kind="stable"), kind="stable")
