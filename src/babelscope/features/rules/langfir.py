"""Features against random tokens."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from babelscope.controls import Scored
from babelscope.errors import SelectionError
from babelscope.features.choosing import choose_features
from babelscope.features.feature_scores import (
    SLACK,
    FeatureChoice,
    FeatureCounts,
    capped,
    check_cap,
    check_fired_counts,
)


@dataclass(frozen=True)
class LangFIR:
    """Features consistently active on a language's text that random tokens do not activate as often.

    C_k = {present in a share ≥ τ of the documents of k}; kept are those of C_k with
    rate_k ≥ ratio · rate_random, in shares of tokens. ratio = inf keeps what no random token activated.
    min_count: tokens of k on which a kept feature fired at least.
    cap: the best so many by rate ratio, half a token added to both counts so that it is finite; None keeps all.
    A language's features depend on its own text and the random tokens alone, on no other language's text.
    Source: after LangFIR, arXiv:2604.03532, whose difference of sets is `LangFIRSets`. Rates differ from that because
    random tokens of a multilingual vocabulary contain every script, so that a few firings there say little.
    Raises SelectionError for thresholds or counts that cannot be.
    """

    name: ClassVar[str] = "langfir"
    tau: float | int = 0.5
    ratio: float | int = 3.0
    min_count: int = 50
    cap: int | None = 10

    def __post_init__(self) -> None:
        if not 0 < self.tau <= 1 or not self.ratio > 0 or self.min_count < 0:
            raise SelectionError(
                f"tau {self.tau}, ratio {self.ratio}, min_count {self.min_count}; expected 0 < tau <= 1, ratio > 0, "
                "min_count >= 0"
            )
        check_cap(self.cap)

    def select(self, counts: FeatureCounts) -> FeatureChoice:
        """The features of each language, by ln of the smoothed rate ratio."""
        check_fired_counts(counts.fired, counts.tokens, "text")
        check_fired_counts(counts.random_fired, counts.random_tokens, "random tokens")
        fired, random_fired = counts.fired.double(), counts.random_fired.double()
        consistent = counts.present >= self.tau * counts.documents.double() * (1 - SLACK)
        rate, noise = fired / counts.tokens, random_fired / counts.random_tokens
        above = random_fired == 0 if math.isinf(self.ratio) else rate >= self.ratio * noise * (1 - SLACK)
        mask = (consistent & above & (fired >= max(1, self.min_count))).T.contiguous()
        smooth = (fired + 0.5) / (counts.tokens + 1) / ((random_fired + 0.5) / (counts.random_tokens + 1))
        score = smooth.log().T.contiguous()
        sizes = {"uncapped": mask, "consistent": consistent.T.contiguous()}
        return FeatureChoice(capped(mask, score, self.cap), score, sizes, {})

    def score(self, counts: FeatureCounts) -> Scored:
        """Minus the largest ln rate ratio among languages in which the feature is consistent; lower is better."""
        choice = self.select(counts)
        best = torch.where(choice.counted["consistent"], choice.score, -torch.inf).amax(dim=0)
        return Scored(torch.where(best.isfinite(), -best, torch.nan)[None], best.isfinite()[None])

    choose = choose_features


RULE = LangFIR
