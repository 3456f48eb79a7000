"""Would the units look as selective if the language labels meant nothing?"""

import math
from typing import NamedTuple

import numpy as np
import torch
from einops import rearrange, reduce

from babelscope.axes import Bool, Float64, Tensor
from babelscope.controls.intervals import benjamini_hochberg
from babelscope.controls.shards import A, ScoreShards, ShardSums
from babelscope.languages import Language

BINS, FEWEST_COUNTS, SLACK, Q_LEVEL = 10, 10, 1e-12, 0.05
"""Bins of pooled rate; tokens a unit must be active on to be tested; ties in a score; the q that counts."""


class ShuffledLabels(NamedTuple):
    """Selectivity against the null that the label does not matter at all."""

    p: Float64[Tensor, "layer unit"]
    """p-value of each unit; NaN for one active on fewer than 10 tokens."""
    q: Float64[Tensor, "layer unit"]
    """p after Benjamini-Hochberg over the tested units."""
    share: float
    """Share of the selected units with q <= 0.05; NaN where none is selected."""
    share_by_language: dict[Language, float]
    """The same by language."""
    set_fdr: float
    """Eligible units at or below `cut` under shuffled labels, mean over draws, per such unit under the true ones."""
    cut: float
    """Highest score among the selected units."""
    max_share: Float64[Tensor, "layer unit"]
    """Effect size beside q: largest share of a unit's summed rates that one language has; 1/K … 1."""
    draws: int
    """Permutations."""


def shuffled_labels(
    shards: ShardSums[A],
    score: ScoreShards[A],
    chosen: Bool[Tensor, "language layer unit"],
    *,
    draws: int = 199,
    seed: int,
) -> ShuffledLabels:
    """Permute the language labels of whole shards, never of tokens, and score every unit anew.

    Tokens of a document depend on each other, so permuted tokens would give p-values far too small.
    p of unit i in bin g = (1 + #{draws b, units j of g: score_bj <= score_i + 1e-12}) / (1 + draws · |g|), with ten
    equal bins of pooled rate, because the null of a score depends on the rate. Tested are units active on 10 tokens or
    more, a filter that does not look at labels.
    chosen: the selected units. This null guards against dead and rare units and small text; nearly every unit rejects
    it, and it is no evidence of specificity.
    Raises MeasurementError for fewer than two shards.
    """
    shards.check(fewest=2)
    totals = shards.whole()
    real, any_chosen, below = score(totals), chosen.any(dim=0), 0
    null = PooledNull(real.score, reduce(totals.active, "k l u -> l u", "sum"))
    cut = float(real.score[any_chosen].max()) if bool(any_chosen.any()) else math.nan
    for sums in shards.permuted(draws, seed):
        shuffled = score(sums)
        null.add(shuffled.score)
        below += int((shuffled.eligible & (shuffled.score <= cut + SLACK)).sum())
    p = null.p_values(draws)
    q = benjamini_hochberg(p).reshape(p.shape)
    reached = int((real.eligible & (real.score <= cut + SLACK)).sum())
    rate = rearrange(totals.active, "k l u -> l u k").contiguous() / totals.tokens
    return ShuffledLabels(
        p=p,
        q=q,
        share=share_below(q, any_chosen),
        share_by_language={tag: share_below(q, chosen[k]) for k, tag in enumerate(shards.languages)},
        set_fdr=math.nan if math.isnan(cut) else below / draws / max(1, reached),
        cut=cut,
        max_share=reduce(rate, "l u k -> l u", "max") / reduce(rate, "l u k -> l u", "sum"),
        draws=draws,
    )


def share_below(q: Float64[Tensor, "layer unit"], chosen: Bool[Tensor, "layer unit"]) -> float:
    """Share of the chosen units with q <= 0.05; NaN where none is chosen."""
    return float((q[chosen] <= Q_LEVEL).double().mean()) if bool(chosen.any()) else math.nan


class PooledNull:
    """For each unit, how many null scores of its bin were as low: counted as they come, none is kept."""

    def __init__(self, score: Float64[Tensor, "layer unit"], count: Float64[Tensor, "layer unit"]) -> None:
        self.shape, flat = score.shape, score.flatten().numpy()
        tested = np.flatnonzero(count.flatten().numpy() >= FEWEST_COUNTS)
        by_rate = tested[np.argsort(count.flatten().numpy()[tested], kind="stable")]
        bins = [units for units in np.array_split(by_rate, BINS) if units.size]
        self.bins = [units[np.argsort(flat[units], kind="stable")] for units in bins]
        self.edges = [flat[units] + SLACK for units in self.bins]
        self.hits = [np.zeros(units.size + 1, dtype=np.int64) for units in self.bins]

    def add(self, score: Float64[Tensor, "layer unit"]) -> None:
        """Count one draw's scores; NaN is as high as can be."""
        flat = np.nan_to_num(score.flatten().numpy(), nan=np.inf)
        for units, edges, hits in zip(self.bins, self.edges, self.hits, strict=True):
            first = np.searchsorted(edges, flat[units], side="left")
            hits += np.bincount(first, minlength=hits.size)

    def p_values(self, draws: int) -> Float64[Tensor, "layer unit"]:
        """p of every tested unit; NaN for the others."""
        p = np.full(math.prod(self.shape), np.nan)
        for units, hits in zip(self.bins, self.hits, strict=True):
            p[units] = (1 + hits[:-1].cumsum()) / (1 + draws * units.size)
        return torch.from_numpy(p).reshape(self.shape)
