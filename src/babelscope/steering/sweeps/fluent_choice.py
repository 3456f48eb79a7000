"""Which steered answers count as fluent, and the best of several that were tried: one rule for curves and methods."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

Tried = TypeVar("Tried")
LEAST_RATIO, MOST_RATIO = 0.67, 1.5
"""Perplexity of answers over that of native ones: below they are loops, above they are odd."""
CHOICE_RATIO = 1.47
"""The most on text that a choice is made on: it leaves the test score room below MOST_RATIO."""
LEAST_DISTINCT = 0.8
"""Distinct 4-grams of answers over those of native ones."""


class Standing(NamedTuple):
    """What decides between things that were tried."""

    success: float
    perplexity_ratio: float
    distinct4_ratio: float


class Bounds(NamedTuple):
    """Between which answers are fluent; a ratio that is no number is outside."""

    max_ratio: float | int = CHOICE_RATIO
    min_ratio: float | int = LEAST_RATIO
    min_distinct: float | int = LEAST_DISTINCT

    def hold(self, standing: Standing) -> bool:
        """Whether a perplexity ratio and the distinct 4-grams beside it are fluent."""
        in_band = self.min_ratio <= standing.perplexity_ratio <= self.max_ratio
        return in_band and standing.distinct4_ratio >= self.min_distinct


def best_fluent(
    tried: Sequence[Tried], standing_of: Callable[[Tried], Standing], bounds: Bounds | None = None
) -> Tried:
    """The most successful of what is fluent, of equals that of the lower ratio.

    Where nothing is fluent: that whose ratio is nearest to 1, by its logarithm. Answers far likelier than native ones
    are loops, and no more fluent than odd ones.
    """
    limits = Bounds() if bounds is None else bounds
    fluent = [entry for entry in tried if limits.hold(standing_of(entry))]
    if not fluent:
        return min(tried, key=lambda entry: _from_native(standing_of(entry).perplexity_ratio))
    return max(fluent, key=lambda entry: (standing_of(entry).success, -standing_of(entry).perplexity_ratio))


def _from_native(ratio: float) -> float:
    """How far a perplexity ratio is from that of native answers; one that is no number is farthest."""
    return abs(math.log(ratio)) if ratio > 0 and math.isfinite(ratio) else math.inf
