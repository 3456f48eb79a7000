"""Features of a language's text minus those of random tokens: LangFIR's difference of sets."""

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
class LangFIRSets:
    """C_k \\ R: consistently active on a language's text, and not on sequences of random tokens.

    C_k = {present in a share ≥ τ of the documents of k}, R = {present in a share ≥ random_tau of the random sequences}.
    Present in a sequence: above 0 on at least one of its tokens. Firings are not weighed, and nothing is capped unless
    asked for: how many features a language has is a finding of the method.
    cap: the best so many by the difference of the two shares; None keeps all.
    Source: LangFIR, arXiv:2604.03532; its abstract has the two sets, and its thresholds were not to be had.
    Raises SelectionError for shares outside 0 to 1 or a cap that leaves nothing.
    """

    name: ClassVar[str] = "langfir-sets"
    tau: float | int = 0.5
    random_tau: float | int = 0.5
    cap: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.tau <= 1 or not 0 < self.random_tau <= 1:
            raise SelectionError(
                f"tau {self.tau}, random_tau {self.random_tau}; expected shares above 0, at most 1; correct them"
            )
        check_cap(self.cap)

    def select(self, counts: FeatureCounts) -> FeatureChoice:
        """The features of each language, by share of its documents minus share of random sequences."""
        check_fired_counts(counts.present, counts.documents, "documents of the text")
        check_fired_counts(counts.random_present, counts.random_sequences, "random sequences")
        share = counts.present.double() / counts.documents
        noise = counts.random_present.double() / counts.random_sequences
        consistent, common = share >= self.tau * (1 - SLACK), noise >= self.random_tau * (1 - SLACK)
        mask, score = (consistent & ~common).T.contiguous(), (share - noise).T.contiguous()
        sizes = {"uncapped": mask, "consistent": consistent.T.contiguous(), "random": common.T.contiguous()}
        return FeatureChoice(capped(mask, score, self.cap), score, sizes, {})

    def score(self, counts: FeatureCounts) -> Scored:
        """Minus the largest difference among languages in which the feature is consistent; lower is better."""
        choice = self.select(counts)
        best = torch.where(choice.counted["consistent"], choice.score, -torch.inf).amax(dim=0)
        return Scored(torch.where(best.isfinite(), -best, torch.nan)[None], best.isfinite()[None])

    choose = choose_features


RULE = LangFIRSets
