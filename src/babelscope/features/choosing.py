"""What every rule of features is, and how its choice becomes a FeatureSet."""

import math
from dataclasses import asdict
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch

from babelscope.artifacts.feature_observation import FeatureObservation
from babelscope.artifacts.feature_set import FeatureSet
from babelscope.axes import Bool, Tensor
from babelscope.controls import Scored
from babelscope.features.feature_scores import FeatureChoice, FeatureCounts
from babelscope.languages import Language


@runtime_checkable
class FeatureRule(Protocol):
    """A frozen dataclass in a file of `babelscope.features.rules`, whose fields are the rule's parameters."""

    __dataclass_fields__: ClassVar[dict[str, Any]]
    name: ClassVar[str]

    def select(self, counts: FeatureCounts) -> FeatureChoice:
        """The features of each language, by these counts alone."""
        ...

    def score(self, counts: FeatureCounts) -> Scored:
        """How selective each feature is over languages, for shuffled labels."""
        ...


def choose_features(rule: FeatureRule, observed: FeatureObservation) -> FeatureSet:
    """The FeatureSet of a rule: its fields, what it found, tokens, documents and random tokens are the parameters."""
    choice = rule.select(FeatureCounts.read(observed))
    # JSON has no infinity.
    rule_parameters = {name: "inf" if value == math.inf else value for name, value in asdict(rule).items()}
    return FeatureSet.from_mask(
        choice.mask,
        torch.where(choice.mask, choice.score, torch.zeros_like(choice.score)),
        origin=observed.counts.origin,
        languages=observed.languages,
        site=observed.site,
        sae_id=observed.sae_id,
        sae_hash=observed.sae_hash,
        method=rule.name,
        parameters={
            **rule_parameters,
            **choice.facts,
            **{name: by_language(observed, mask) for name, mask in choice.counted.items()},
            "tokens": observed.counts.tokens,
            "documents": dict(zip(observed.languages, observed.documents.tolist(), strict=True)),
            "random": observed.counts.settings.get("random", {}),
        },
    )


def by_language(observed: FeatureObservation, mask: Bool[Tensor, "language feature"]) -> dict[Language, int]:
    """Features of each language in a mask."""
    return dict(zip(observed.languages, mask.sum(dim=1).tolist(), strict=True))
