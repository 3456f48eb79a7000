"""Controls of a feature selection that need sums only: shuffled labels, bootstrap and half-splits, by the same rule."""

from dataclasses import dataclass
from typing import NamedTuple

from einops import rearrange

from babelscope.artifacts.feature_observation import FeatureObservation, RandomTokens
from babelscope.artifacts.feature_set import FeatureSet
from babelscope.axes import Bool, Float64, Tensor
from babelscope.controls import (
    BootstrapSets,
    Evidence,
    Scored,
    ShardSums,
    ShuffledLabels,
    Stability,
    bootstrap_sets,
    check_draws,
    selection_rows,
    shuffled_labels,
    split_stability,
)
from babelscope.features.feature_scores import FeatureCounts
from babelscope.features.feature_selection import feature_rule_of
from babelscope.languages import Language


class FeatureTotals(NamedTuple):
    """What rules read of an observation, by shard or of a resample; features are units of one layer."""

    tokens: Float64[Tensor, "*shard language"]
    active: Float64[Tensor, "*shard language 1 feature"]
    """Tokens on which each feature fired."""
    documents: Float64[Tensor, "*shard language"]
    present: Float64[Tensor, "*shard language feature"]
    """Documents in which each feature fired."""
    value: Float64[Tensor, "*shard language feature"]
    """Sum of values."""


@dataclass(frozen=True, eq=False)
class FeatureChecks:
    """What the controls say about the sets of one selection."""

    sets: FeatureSet
    bootstrap: BootstrapSets
    """Its frequency is [language, 1, feature]."""
    stability: dict[Language, Stability]
    labels: ShuffledLabels
    seed: int


def feature_shards(observed: FeatureObservation, *, parallel: bool) -> ShardSums[FeatureTotals]:
    """Firing, presence and values by document shard."""
    sums = FeatureTotals(
        tokens=observed.counts.shard_tokens.double(),
        active=rearrange(observed.record.shard_active, "s 1 j k -> s k 1 j").double().contiguous(),
        documents=observed.shard_documents.double(),
        present=rearrange(observed.shard_present, "s j k -> s k j").double().contiguous(),
        value=rearrange(observed.shard_sum, "s j k -> s k j").contiguous(),
    )
    return ShardSums(observed.languages, parallel, sums)


def counts_with_noise(sums: FeatureTotals, noise: RandomTokens) -> FeatureCounts:
    """The counts of a resample, as rules read them; random tokens stay as they were read."""
    return FeatureCounts(
        fired=rearrange(sums.active, "k 1 j -> j k").contiguous(),
        tokens=sums.tokens,
        present=sums.present.T,
        documents=sums.documents,
        value=sums.value.T,
        random_fired=noise.fired,
        random_tokens=noise.tokens,
        random_present=noise.present,
        random_sequences=noise.sequences,
    )


def check_features(
    observed: FeatureObservation, sets: FeatureSet, *, parallel: bool, draws: int = 200, seed: int = 0
) -> FeatureChecks:
    """Shuffled labels, bootstrap over shards and half-splits of a selection, by the rule that made it.

    parallel: the documents are line-parallel: resamples draw the same sentences in every language.
    Raises MeasurementError for fewer than 20 shards, SelectionError for a set made in another way, or fewer
    than 2 draws.
    """
    check_draws(draws)
    rule, shards = feature_rule_of(sets), feature_shards(observed, parallel=parallel)

    def select(sums: FeatureTotals) -> Bool[Tensor, "language 1 feature"]:
        return rearrange(rule.select(counts_with_noise(sums, observed.random)).mask, "k j -> k 1 j")

    def score(sums: FeatureTotals) -> Scored:
        return rule.score(counts_with_noise(sums, observed.random))

    mask = rearrange(sets.mask(), "k j -> k 1 j")
    return FeatureChecks(
        sets=sets,
        bootstrap=bootstrap_sets(shards, select, draws=draws, seed=seed),
        stability=split_stability(shards, select, splits=draws, seed=seed),
        labels=shuffled_labels(shards, score, mask, draws=draws - 1, seed=seed),
        seed=seed,
    )


def feature_evidence_rows(checks: FeatureChecks) -> list[Evidence]:
    """The checks as tidy rows: one per claim, language and control."""
    return selection_rows(checks.sets.sizes, checks.bootstrap, checks.stability, checks.labels, seed=checks.seed)
