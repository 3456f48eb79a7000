"""Controls of a selection that need counts only, no model."""

from dataclasses import dataclass

import torch

from babelscope.artifacts import NeuronSet, Observation
from babelscope.axes import Bool, Float64, Tensor
from babelscope.controls import (
    Agreement,
    BootstrapSets,
    CorpusSizeRow,
    Evidence,
    NeuronSums,
    Overlap,
    Scored,
    ShardSums,
    ShuffledLabels,
    Stability,
    bootstrap_sets,
    check_draws,
    corpus_size_curve,
    neuron_shards,
    overlap,
    selection_rows,
    set_agreement,
    shuffled_labels,
    split_stability,
)
from babelscope.controls.shards import generator_of
from babelscope.languages import Language
from babelscope.neurons import NeuronRule, ScoringRule, UnitCounts, rule_of
from babelscope.neurons.neuron_selection import counts_of


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
    check_draws(draws)
    if other is not None:
        sets.origin.check_same(other.origin, "comparing with an observation")
    rule, shards = rule_of(sets), neuron_shards(observation, sets.at, parallel=parallel)

    def select(sums: NeuronSums) -> Bool[Tensor, "language layer unit"]:
        return rule.select(counts_of(sums)).mask

    return SetChecks(
        sets=sets,
        bootstrap=bootstrap_sets(shards, select, draws=draws, seed=seed),
        stability=split_stability(shards, select, splits=draws, seed=seed),
        corpus_size=corpus_size_curve(shards, select, seed=seed),
        overlap=overlap(sets, seed=seed),
        labels=shuffled_labels_of(shards, sets, draws=draws - 1, seed=seed),
        content=content_agreement(shards, sets, rule, seed=seed) if parallel else None,
        other=None if other is None else set_agreement(sets, repacked(sets, rule.select(counts_in(other, sets)).mask)),
        seed=seed,
    )


def shuffled_labels_of(
    shards: ShardSums[NeuronSums], sets: NeuronSet, *, draws: int, seed: int
) -> ShuffledLabels | None:
    """Shuffled labels by the score that ranked the set's neurons, a searched penalty as it was found; None without."""
    rule = rule_of(sets, searched=False)
    if not isinstance(rule, ScoringRule):
        return None

    def score(sums: NeuronSums) -> Scored:
        return rule.score(counts_of(sums))

    return shuffled_labels(shards, score, sets.mask(), draws=draws, seed=seed)


def counts_in(observation: Observation, sets: NeuronSet) -> UnitCounts:
    """Another observation's counts, its languages in the order of the sets."""
    order = [observation.index(tag) for tag in sets.languages]
    return UnitCounts(observation[sets.at].active[..., order], observation.token_counts[order])


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


def content_agreement(shards: ShardSums[NeuronSums], sets: NeuronSet, rule: NeuronRule, *, seed: int) -> Agreement:
    """Is it language or content? Sets from one half of the sentences everywhere, against sets from other halves.

    In the first selection every language reads the same half of the shards; in the second each language reads a half
    drawn for itself, so that two languages share about half of their sentences and not all.
    """
    shards.check()
    generator, n = generator_of(seed), shards.n_shards
    common_half, *half_of_language = (half_of(n, generator) for _ in range(1 + len(sets.languages)))
    sums = (next(shards.each_common(common_half[None])), shards.apart(torch.stack(half_of_language)))
    return set_agreement(*(repacked(sets, rule.select(counts_of(part)).mask) for part in sums))


def half_of(n: int, generator: torch.Generator) -> Float64[Tensor, " shard"]:
    """Weight 1 for a random half of the shards."""
    return torch.zeros(n, dtype=torch.float64).index_fill_(0, torch.randperm(n, generator=generator)[: n // 2], 1.0)


def evidence_rows(checks: SetChecks) -> list[Evidence]:
    """The checks as tidy rows: one per claim, language and control."""
    sizes, seed = checks.sets.sizes, checks.seed
    rows = selection_rows(sizes, checks.bootstrap, checks.stability, checks.labels, seed=seed)
    for name, agreement in (("content", checks.content), ("other text", checks.other)):
        if agreement is not None:
            for k, (tag, size) in enumerate(sizes.items()):
                shared = {"claim": "agreement", "language": tag, "n": size, "seed": seed}
                rows.append(Evidence(control=name, estimate=float(agreement.jaccard[k]), **shared))
                rows.append(Evidence(control=f"{name}, chance", estimate=float(agreement.chance[k]), **shared))
    return rows
