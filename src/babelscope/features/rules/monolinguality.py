"""Features louder in one language than in the others."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from einops import rearrange, reduce

from babelscope.controls import Scored
from babelscope.errors import SelectionError
from babelscope.features.choosing import choose_features
from babelscope.features.feature_scores import (
    FeatureChoice,
    FeatureCounts,
    check_fired_counts,
    monolinguality,
    top_mask,
)

Of = Literal["value", "rate"]


@dataclass(frozen=True)
class Monolingual:
    """The `count` features of highest ν in each language; the formula is in `monolinguality`.

    A feature is kept only where ν > 0, it fired on `min_count` tokens of the language, and the language has at least
    `share` of the sum over languages of its means, or highest ν would also pick what many languages share.
    of: "value", the mean over tokens of the feature's value, tokens where it is 0 among them; or "rate", the share of
    tokens on which it fires, which does not depend on the scale of the feature.
    Source: Deng et al. 2025, arXiv:2505.05111, without these three conditions.
    """

    name: ClassVar[str] = "monolinguality"
    count: int = 10
    of: Of = "value"
    share: float | int = 0.5
    min_count: int = 50

    def __post_init__(self) -> None:
        if self.count < 1 or not 0 <= self.share <= 1 or self.min_count < 0:
            raise SelectionError(
                f"count {self.count}, share {self.share}, min_count {self.min_count}; expected >= 1, 0 to 1, >= 0"
            )

    def select(self, counts: FeatureCounts) -> FeatureChoice:
        """The features of each language, by ν."""
        check_fired_counts(counts.fired, counts.tokens, "text")
        mean = counts.value / counts.tokens if self.of == "value" else counts.rate()
        nu, part = monolinguality(mean), mean / mean.sum(dim=1, keepdim=True)
        allowed = (nu > 0) & (part >= self.share) & (counts.fired >= max(1, self.min_count))
        score = rearrange(nu, "j k -> k j")
        return FeatureChoice(top_mask(nu, allowed, self.count), score, {"uncapped": allowed.T}, {})

    def score(self, counts: FeatureCounts) -> Scored:
        """Minus the largest ν of the rate, whose scale is the same for all features; lower is better."""
        fired_enough = reduce(counts.fired, "j k -> j", "sum") >= max(1, self.min_count)
        largest = monolinguality(counts.rate()).amax(dim=1)
        return Scored(torch.where(fired_enough, -largest, torch.nan)[None], fired_enough[None])

    choose = choose_features


RULE = Monolingual
