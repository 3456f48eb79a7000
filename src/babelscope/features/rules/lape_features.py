"""The rule for neurons, on features."""

from dataclasses import dataclass
from typing import ClassVar

from einops import rearrange, reduce, repeat

from babelscope.controls import Scored
from babelscope.features.choosing import choose_features
from babelscope.features.feature_scores import FeatureChoice, FeatureCounts, capped, check_cap
from babelscope.neurons import Lape, UnitCounts


@dataclass(frozen=True)
class LapeFeatures:
    """Features by activation probability entropy: `babelscope.neurons.Lape` on shares of tokens on which one fires.

    Thresholds are quantiles of all rates; features fire far less often than neurons, so a quantile may be 0 where most
    never fire, and eligible then means fires at all.
    cap: features per language at most, those of lowest entropy; None keeps all.
    Source: Tang et al. 2024, arXiv:2402.16438.
    """

    name: ClassVar[str] = "lape"
    top_rate: float = 0.01
    filter_rate: float = 0.95
    bar_rate: float = 0.95
    min_count: int = 50
    cap: int | None = None

    def __post_init__(self) -> None:
        check_cap(self.cap)
        _ = self.neurons

    @property
    def neurons(self) -> Lape:
        """The rule without the cap."""
        return Lape(self.top_rate, self.filter_rate, self.bar_rate, self.min_count)

    def select(self, counts: FeatureCounts) -> FeatureChoice:
        """The features of each language, by the negative entropy in nats."""
        choice = self.neurons.select(UnitCounts(rearrange(counts.fired, "j k -> 1 j k"), counts.tokens))
        mask = rearrange(choice.mask, "k 1 j -> k j")
        score = repeat(-choice.entropy[0], "j -> k j", k=len(mask))
        facts = {"threshold_filter": choice.threshold_filter, "threshold_bar": choice.threshold_bar}
        return FeatureChoice(capped(mask, score, self.cap), score, {"uncapped": mask}, facts)

    def score(self, counts: FeatureCounts) -> Scored:
        """The entropy over languages, of every feature that fired often enough; lower is better."""
        active = rearrange(counts.fired, "j k -> 1 j k")
        entropy = self.neurons.score(UnitCounts(active, counts.tokens)).score
        return Scored(entropy, reduce(active, "l j k -> l j", "sum") >= max(1, self.min_count))

    choose = choose_features


RULE = LapeFeatures
