"""Controls of a selection that need counts only, no model."""

import math
from dataclasses import dataclass

import torch

from babelscope.artifacts import NeuronSet, Observation
from babelscope.controls import (
    LABELS_CAVEAT,
    SHARDS_CAVEAT,
    SPLITS_CAVEAT,
    Agreement,
    BootstrapSets,
    CorpusSizeRow,
    Evidence,
    Overlap,
    ShuffledLabels,
    Stability,
    bootstrap_sets,
    corpus_size_curve,
    overlap,
    set_agreement,
    shuffled_labels,
    split_stability,
)
from babelscope.controls.shards import FEWEST_SHARDS, Shards
from babelscope.errors import SelectionError
from babelscope.languages import Language
from babelscope.neurons import scorer_of, selector_of


@dataclass(frozen=True, eq=False)
class SetChecks:
    """What the controls say about the sets of one selection."""

    sets: NeuronSet
    bootstrap: BootstrapSets
    stability: dict[Language, Stability]
    corpus_size: list[CorpusSizeRow]
    overlap: Overlap
    labels: ShuffledLabels | None
    """None for a method that gives a neuron no score over languages."""
    content: Agreement | None
    """Sets from equal sentences in all languages against sets from different ones in each; None if not parallel."""
    other: Agreement | None
    """Against the sets of another observation by the same rule, where one was handed over."""
    seed: int


def check_sets(
    observation: Observation,
    sets: NeuronSet,
    *,
    parallel: bool,
    other: Observation | None = None,
    draws: int = 200,
    seed: int = 0,
) -> SetChecks:
    """Shuffled labels, bootstrap, half-splits, corpus size and overlap of a selection, by the rule that made it.

    parallel: the documents are line-parallel: resamples draw the same sentences in every language.
    other: an observation of other text by the same model, such as parallel text where this one is not; the rule is
    applied to it too, and the sets compared: is it language or genre?
    Raises MeasurementError for fewer than 20 shards, ArtifactError where `other` is of another model, LanguageError
    where it lacks a language.
    """
    if draws < 2:
        raise SelectionError(f"draws {draws} came; expected 2 or more for an interval; draw more")
    if other is not None:
        sets.origin.check_same(other.origin, "comparing with an observation")
    select = selector_of(sets)
    scored = sets.method != "top-rate"
    return SetChecks(
        sets=sets,
        bootstrap=bootstrap_sets(observation, select, draws=draws, seed=seed, parallel=parallel, at=sets.at),
        stability=split_stability(observation, select, splits=draws, seed=seed, at=sets.at),
        corpus_size=corpus_size_curve(observation, select, seed=seed, at=sets.at),
        overlap=overlap(sets, seed=seed),
        labels=shuffled_labels(
            observation, scorer_of(sets), sets.mask(), draws=draws - 1, seed=seed, parallel=parallel, at=sets.at
        )
        if scored
        else None,
        content=content_agreement(observation, sets, seed=seed) if parallel else None,
        other=None if other is None else set_agreement(sets, repacked(sets, select(*counts_of(other, sets)))),
        seed=seed,
    )


def counts_of(other: Observation, sets: NeuronSet) -> tuple[torch.Tensor, torch.Tensor]:
    """Another observation's counts, its languages in the order of the sets."""
    order = [other.index(tag) for tag in sets.languages]
    return other[sets.at].active[..., order], other.token_counts[order]


def repacked(sets: NeuronSet, mask: torch.Tensor) -> NeuronSet:
    """A mask as a NeuronSet of the same kind; it has no scores."""
    return NeuronSet.from_mask(
        mask,
        torch.zeros(mask.shape),
        origin=sets.origin,
        languages=sets.languages,
        at=sets.at,
        method=sets.method,
        parameters=sets.parameters,
    )


def content_agreement(observation: Observation, sets: NeuronSet, *, seed: int) -> Agreement:
    """Is it language or content? Sets from one half of the sentences everywhere, against sets from other halves.

    In the first selection every language reads the same half of the shards; in the second each language reads a half
    drawn for itself, so that two languages share about half of their sentences and not all.
    """
    shards = Shards.read(observation, sets.at, fewest=FEWEST_SHARDS)
    generator = torch.Generator().manual_seed(seed)
    n, half, select = shards.n_shards, shards.n_shards // 2, selector_of(sets)
    same = torch.zeros(n, dtype=torch.float64)
    same[torch.randperm(n, generator=generator)[:half]] = 1
    own = torch.zeros(len(sets.languages), n, dtype=torch.float64)
    for row in own:
        row[torch.randperm(n, generator=generator)[:half]] = 1
    masks = [select(*counts) for counts in (shards.common(same), shards.own(own))]
    return set_agreement(*(repacked(sets, mask) for mask in masks))


def evidence_rows(checks: SetChecks) -> list[Evidence]:
    """The checks as tidy rows: one a claim, language and control."""
    rows, seed = [], checks.seed
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
                math.nan,
                checks.bootstrap.draws,
                seed,
                SHARDS_CAVEAT,
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
                math.nan,
                checks.bootstrap.draws,
                seed,
                SPLITS_CAVEAT,
            )
        )
        rows.append(Evidence("stability", tag, "chance", size, found.chance, seed=seed))
        if checks.labels is not None:
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
                )
            )
    for name, agreement in (("content", checks.content), ("other text", checks.other)):
        if agreement is not None:
            for k, tag in enumerate(checks.sets.languages):
                size = checks.sets.sizes[tag]
                rows.append(Evidence("agreement", tag, name, size, float(agreement.jaccard[k]), seed=seed))
                rows.append(Evidence("agreement", tag, f"{name}, chance", size, float(agreement.chance[k]), seed=seed))
    return rows
