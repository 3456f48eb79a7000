"""Controls of a feature selection that need sums only: shuffled labels, bootstrap and half-splits, by the same rule."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from einops import rearrange, reduce

from babelscope.artifacts.feature_observation import FeatureObservation
from babelscope.artifacts.feature_set import FeatureSet
from babelscope.axes import Bool, Float64, Int64, Tensor
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
from babelscope.errors import SelectionError
from babelscope.features.scores import langfir_mask, monolinguality
from babelscope.features.selection import SELECTORS
from babelscope.languages import Language


class FeatureSums(NamedTuple):
    """What rules read of an observation, by shard or of a resample; features are units of one layer."""

    tokens: Float64[Tensor, "*shard language"]
    active: Float64[Tensor, "*shard language 1 feature"]
    """Tokens on which each feature fired."""
    documents: Float64[Tensor, "*shard language"]
    present: Float64[Tensor, "*shard language feature"]
    """Documents in which each feature fired."""
    value: Float64[Tensor, "*shard language feature"]
    """Sum of values."""


class Resampled(NamedTuple):
    """What a rule reads of a resample."""

    fired: Int64[Tensor, "feature language"]
    tokens: Int64[Tensor, " language"]
    present: Int64[Tensor, "feature language"]
    documents: Int64[Tensor, " language"]
    value: Float64[Tensor, "feature language"]
    """Sum of values."""

    @classmethod
    def read(cls, sums: FeatureSums) -> "Resampled":
        """Counts as whole numbers, features first."""
        return cls(
            rearrange(sums.active, "k 1 j -> j k").long(),
            sums.tokens.long(),
            sums.present.T.long(),
            sums.documents.long(),
            sums.value.T,
        )


@dataclass(frozen=True, eq=False)
class FeatureChecks:
    """What the controls say about the sets of one selection."""

    sets: FeatureSet
    bootstrap: BootstrapSets
    """Its frequency is [language, 1, feature]."""
    stability: dict[Language, Stability]
    labels: ShuffledLabels
    seed: int


def feature_shards(observed: FeatureObservation, *, parallel: bool) -> ShardSums[FeatureSums]:
    """Firing, presence and values by document shard."""
    sums = FeatureSums(
        tokens=observed.counts.shard_tokens.double(),
        active=rearrange(observed.record.shard_active, "s 1 j k -> s k 1 j").double().contiguous(),
        documents=observed.shard_documents.double(),
        present=rearrange(observed.shard_present, "s j k -> s k j").double().contiguous(),
        value=rearrange(observed.shard_sum, "s j k -> s k j").contiguous(),
    )
    return ShardSums(observed.languages, parallel, sums)


Rule = Callable[[Resampled], Bool[Tensor, "language feature"]]
Score = Callable[[Resampled], Scored]


def rule_of(observed: FeatureObservation, sets: FeatureSet) -> Rule:
    """The rule that made a set, on resampled text; random tokens stay as they were read.

    Raises SelectionError for a set that no rule of this package made.
    """
    selector = SELECTORS.get(sets.method)
    if selector is None:
        raise SelectionError(f"method {sets.method!r} can not be repeated; expected one of {', '.join(SELECTORS)}")
    names = {
        "langfir": ("tau", "ratio", "min_count", "cap"),
        "monolinguality": ("count", "of", "share", "min_count"),
        "lape": ("top_rate", "filter_rate", "bar_rate", "min_count", "cap"),
    }[sets.method]
    given = {name: sets.parameters[name] for name in names}
    given |= {"ratio": float(given["ratio"])} if "ratio" in given else {}
    return lambda text: selector(with_text(observed, text), **given).mask()


def with_text(observed: FeatureObservation, text: Resampled) -> FeatureObservation:
    """The observation with the sums of a resample in the place of its own; it has no shards."""
    record = replace(
        observed.record, active=text.fired[None], sum=text.value[None], shard_active=observed.record.shard_active[:0]
    )
    counts = replace(
        observed.counts, records={observed.site.at: record}, token_counts=text.tokens, documents=text.documents
    )
    return replace(observed, counts=counts, present=text.present)


def score_of(observed: FeatureObservation, sets: FeatureSet) -> Score:
    """How selective each feature is by the set's method, lower being more so, over languages.

    langfir: minus the largest ln rate ratio among languages in which it is consistent.  monolinguality: minus the
    largest ν of the rate, whose scale is the same for all features.  lape: the entropy over languages, by rates.
    """
    given, noise = sets.parameters, observed.random

    def score(text: Resampled) -> Scored:
        if sets.method == "langfir":
            choice = langfir_mask(
                text.fired,
                text.tokens,
                text.present,
                text.documents,
                noise.fired,
                noise.tokens,
                tau=given["tau"],
                ratio=float(given["ratio"]),
                min_count=given["min_count"],
            )
            best = torch.where(choice.consistent, choice.log_ratio, -torch.inf).amax(dim=0)
            return Scored(torch.where(best.isfinite(), -best, torch.nan), best.isfinite())
        rate = text.fired.double() / text.tokens
        seen = reduce(text.fired, "j k -> j", "sum") >= max(1, given["min_count"])
        if sets.method == "monolinguality":
            return Scored(torch.where(seen, -monolinguality(rate).amax(dim=1), torch.nan), seen)
        share = rate / rate.sum(dim=1, keepdim=True)
        return Scored(torch.special.entr(share).sum(dim=1), seen)

    return score


def check_features(
    observed: FeatureObservation, sets: FeatureSet, *, parallel: bool, draws: int = 200, seed: int = 0
) -> FeatureChecks:
    """Shuffled labels, bootstrap over shards and half-splits of a selection, by the rule that made it.

    parallel: the documents are line-parallel: resamples draw the same sentences in every language.
    Raises MeasurementError for fewer than 20 shards, SelectionError for a set made in another way, or fewer
    than 2 draws.
    """
    check_draws(draws)
    rule, score, shards = rule_of(observed, sets), score_of(observed, sets), feature_shards(observed, parallel=parallel)

    def select(sums: FeatureSums) -> Bool[Tensor, "language 1 feature"]:
        return rearrange(rule(Resampled.read(sums)), "k j -> k 1 j")

    def scored(sums: FeatureSums) -> Scored:
        found = score(Resampled.read(sums))
        return Scored(found.score[None], found.eligible[None])

    mask = rearrange(sets.mask(), "k j -> k 1 j")
    return FeatureChecks(
        sets=sets,
        bootstrap=bootstrap_sets(shards, select, draws=draws, seed=seed),
        stability=split_stability(shards, select, splits=draws, seed=seed),
        labels=shuffled_labels(shards, scored, mask, draws=draws - 1, seed=seed),
        seed=seed,
    )


def evidence_rows(checks: FeatureChecks) -> list[Evidence]:
    """The checks as tidy rows: one per claim, language and control."""
    return selection_rows(checks.sets.sizes, checks.bootstrap, checks.stability, checks.labels, seed=checks.seed)
