"""How well units tell labelled texts apart, by average precision, and which of the best two languages share."""

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import torch

from babelscope.axes import Bool, Float, Float64, Int64, Tensor
from babelscope.controls import rank_p
from babelscope.languages import Language


class ExpertOverlap(NamedTuple):
    """Experts that two languages have in common."""

    first: Language
    second: Language
    share: float
    """Of the experts of each."""
    null: float
    """Mean share for labels shuffled."""
    p: float
    """Rank of the share among those."""


class Ranked:
    """Scores of many detectors on some texts, sorted once for labels that change."""

    def __init__(self, scores: Float[Tensor, "text unit"]) -> None:
        ordered, self.order = scores.sort(dim=0, descending=True)
        last = torch.ones(1, ordered.shape[1], dtype=torch.bool)
        self.last = torch.cat([ordered[:-1] != ordered[1:], last])
        """Where the next text has a smaller score: there a threshold can stand."""

    def precision(self, labels: Bool[Tensor, " text"]) -> Float64[Tensor, " unit"]:
        """Average precision of every detector."""
        hits = labels.double()[self.order].cumsum(dim=0)
        at_thresholds = hits.where(self.last, 0.0)
        before = torch.cat([torch.zeros_like(hits[:1]), at_thresholds.cummax(dim=0).values[:-1]])
        read = torch.arange(1, len(hits) + 1, dtype=torch.float64)[:, None]
        steps = ((hits - before) * hits / read).where(self.last, 0.0)
        return steps.sum(dim=0) / hits[-1]


def top_units(precision: Float64[Tensor, " unit"], number: int) -> Int64[Tensor, " expert"]:
    """The best units, best first; of equal ones the first."""
    return precision.sort(descending=True, stable=True).indices[:number]


def places(shaped: Tensor, units: Int64[Tensor, " expert"]) -> tuple[tuple[int, int], ...]:
    """(layer, neuron) of units by their place in all layers side by side."""
    return tuple(divmod(unit, shaped.shape[1]) for unit in units.tolist())


def expert_overlaps(
    languages: Sequence[Language], chosen: Int64[Tensor, "language draw expert"], units: int
) -> tuple[ExpertOverlap, ...]:
    """Share of experts in common for every pair, the first draw being that of the true labels."""
    overlaps, number = [], chosen.shape[2]
    member = torch.zeros(*chosen.shape[:2], units, dtype=torch.bool).scatter_(2, chosen, True)
    for first, second in combinations(range(len(languages)), 2):
        shares = (member[first] & member[second]).sum(dim=1).double() / number
        overlaps.append(
            ExpertOverlap(
                languages[first],
                languages[second],
                float(shares[0]),
                float(shares[1:].mean()),
                rank_p(float(shares[0]), shares[1:]),
            )
        )
    return tuple(overlaps)
