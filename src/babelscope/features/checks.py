"""Controls of a feature selection that need counts only: shuffled labels, bootstrap and half-splits, by the same rule.

The harness of `babelscope.controls` resamples counts by shard.  Features are selected by more than firing counts, so
what a rule needs is laid side by side as layers of one Observation, and the rule reads it back.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange, reduce

from babelscope.artifacts import Observation, SiteRecord
from babelscope.artifacts.feature_observation import FeatureObservation
from babelscope.artifacts.feature_set import FeatureSet
from babelscope.axes import Bool, Float64, Int64, Tensor
from babelscope.controls import (
    LABELS_CAVEAT,
    SHARDS_CAVEAT,
    SPLITS_CAVEAT,
    BootstrapSets,
    Evidence,
    Scored,
    Selector,
    ShuffledLabels,
    Stability,
    benjamini_hochberg,
    bootstrap_sets,
    split_stability,
)
from babelscope.controls.labels import SLACK, PooledNull, permuted_labels, share_below
from babelscope.controls.shards import Shards, generator_of
from babelscope.errors import SelectionError
from babelscope.features.scores import langfir_mask, monolinguality
from babelscope.features.selection import SELECTORS
from babelscope.languages import Language

AT = "features"
FIRED, PRESENT, VALUE = 0, 1, 2
STEPS = 2**24
"""Sums of values are resampled as whole numbers, in steps of the feature's largest shard sum over this."""


class Resampled(NamedTuple):
    """What a rule reads of a resample."""

    fired: Int64[Tensor, "feature language"]
    tokens: Int64[Tensor, " language"]
    present: Int64[Tensor, "feature language"]
    documents: Int64[Tensor, " language"]
    value: Float64[Tensor, "feature language"]
    """Sum of values, to 2⁻²⁴ of the feature's largest shard sum."""


@dataclass(frozen=True, eq=False)
class FeatureChecks:
    """What the controls say about the sets of one selection."""

    sets: FeatureSet
    bootstrap: BootstrapSets
    """Its frequency is [language, 1, feature]."""
    stability: dict[Language, Stability]
    labels: ShuffledLabels
    seed: int


def side_by_side(observed: FeatureObservation) -> tuple[Observation, Float64[Tensor, "feature 1"]]:
    """Firing, presence and values as three layers of counts, and the size of a step of the third.

    The last unit of the presence layer holds the documents.
    """
    step = observed.shard_sum.amax(dim=(0, 2)).clamp(min=torch.finfo(torch.float64).tiny) / STEPS
    value = (observed.shard_sum / step[:, None]).round().to(torch.int32)
    fired = observed.record.shard_active[:, 0]
    none = torch.zeros_like(observed.shard_documents, dtype=torch.int32)
    documents = observed.shard_documents.to(torch.int32)
    rows = ((fired, none), (observed.shard_present, documents), (value, none))
    shards = torch.stack([torch.cat([part, last[:, None]], dim=1) for part, last in rows], dim=1)
    active = reduce(shards.long(), "s l j k -> l j k", "sum")
    zeros = torch.zeros(active.shape, dtype=torch.float64)
    record = SiteRecord((FIRED, PRESENT, VALUE), active, zeros, zeros, zeros[:, 0], shards)
    return replace(observed.counts, records={AT: record}), step[:, None]


def read_back(
    active: Int64[Tensor, "layer unit language"], tokens: Int64[Tensor, " language"], step: Tensor
) -> Resampled:
    """The parts of a resample of `side_by_side`."""
    whole, present = active[:, :-1], active[PRESENT]
    return Resampled(whole[FIRED], tokens, whole[PRESENT], present[-1], whole[VALUE] * step)


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
    if draws < 2:
        raise SelectionError(f"draws {draws} came; expected 2 or more for an interval; draw more")
    view, step = side_by_side(observed)
    rule, score = rule_of(observed, sets), score_of(observed, sets)

    def select(active: Tensor, tokens: Tensor) -> Tensor:
        mask = rule(read_back(active, tokens, step))
        # Set members stand in the first layer alone, so that chance is counted over the features.
        return F.pad(rearrange(mask, "k j -> k 1 j"), (0, 1, 0, 2))

    return FeatureChecks(
        sets=sets,
        bootstrap=bootstrap_of(view, select, parallel=parallel, draws=draws, seed=seed),
        stability=split_stability(view, select, splits=draws, seed=seed, at=AT),
        labels=labels_of(
            view, sets, lambda active, tokens: score(read_back(active, tokens, step)), parallel, draws - 1, seed
        ),
        seed=seed,
    )


def bootstrap_of(view: Observation, select: Selector, *, parallel: bool, draws: int, seed: int) -> BootstrapSets:
    """`bootstrap_sets` of the view, its frequencies by feature alone."""
    found = bootstrap_sets(view, select, draws=draws, seed=seed, parallel=parallel, at=AT)
    return found._replace(frequency=found.frequency[:, :1, :-1])


def labels_of(
    view: Observation,
    sets: FeatureSet,
    score: Callable[[Tensor, Tensor], Scored],
    parallel: bool,
    draws: int,
    seed: int,
) -> ShuffledLabels:
    """`shuffled_labels` with scores of the features alone, whatever layers the view has."""
    shards, generator = Shards.read(view, AT, fewest=2), generator_of(seed)
    active, tokens, mask = view[AT].active, view.token_counts, sets.mask()
    real, chosen = score(active, tokens), mask.any(dim=0)
    fired = active[FIRED, :-1]
    null, below = PooledNull(real.score[None], reduce(fired, "j k -> 1 j", "sum")), 0
    cut = float(real.score[chosen].max()) if bool(chosen.any()) else math.nan
    for _ in range(draws):
        drawn = score(*shards.relabelled(permuted_labels(shards, generator, parallel)))
        null.add(drawn.score[None])
        below += int((drawn.eligible & (drawn.score <= cut + SLACK)).sum())
    p = null.p_values(draws)
    q = benjamini_hochberg(p).reshape(p.shape)
    rate = fired / tokens.double()
    found = int((real.eligible & (real.score <= cut + SLACK)).sum())
    return ShuffledLabels(
        p=p,
        q=q,
        share=share_below(q, chosen[None]),
        share_by_language={tag: share_below(q, mask[k][None]) for k, tag in enumerate(sets.languages)},
        set_fdr=math.nan if math.isnan(cut) else below / draws / max(1, found),
        cut=cut,
        max_share=(rate.amax(dim=1) / rate.sum(dim=1))[None],
        draws=draws,
    )


def evidence_rows(checks: FeatureChecks) -> list[Evidence]:
    """The checks as tidy rows: one a claim, language and control."""
    rows, seed, draws = [], checks.seed, checks.bootstrap.draws
    for tag, size in checks.sets.sizes.items():
        low, high = checks.bootstrap.interval[tag]
        rows.append(
            Evidence(
                "set size",
                tag,
                "bootstrap over shards",
                size,
                size,
                low,
                high,
                draws=draws,
                seed=seed,
                note=SHARDS_CAVEAT,
            )
        )
        found = checks.stability[tag]
        rows.append(
            Evidence(
                "stability",
                tag,
                "half-splits of shards",
                size,
                found.median,
                found.low,
                found.high,
                draws=draws,
                seed=seed,
                note=SPLITS_CAVEAT,
            )  # fmt: skip
        )
        rows.append(Evidence("stability", tag, "chance", size, found.chance, seed=seed))
        share = checks.labels.share_by_language[tag]
        rows.append(
            Evidence(
                "share with q <= .05",
                tag,
                "shuffled labels",
                size,
                share,
                draws=checks.labels.draws,
                seed=seed,
                note=LABELS_CAVEAT,
            )  # fmt: skip
        )
    return rows
