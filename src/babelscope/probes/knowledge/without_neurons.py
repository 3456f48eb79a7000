"""Knowledge or language: what P@1 loses in each language while a language's neurons are off."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerBase

from babelscope.ablation.switch_off import switched_off
from babelscope.artifacts import NeuronSet
from babelscope.axes import Bool, Tensor
from babelscope.controls import Interval, layer_matched, rank_p
from babelscope.controls.bootstrap_draws import mean_interval
from babelscope.errors import LanguageError
from babelscope.languages import Language
from babelscope.models import check_made_for, layout_of
from babelscope.models.plain import CausalModel
from babelscope.probes.knowledge.facts import FactTable
from babelscope.probes.knowledge.typed_ranking import RankingRule, rank_objects
from babelscope.probes.probe_evidence import SiteEvidence
from babelscope.progress import with_progress

RESAMPLES = 1_000
"""Of facts, for intervals."""


class KnowledgeLoss(NamedTuple):
    """P@1 in one language with the neurons of one language off."""

    neurons: Language
    asked_in: Language
    facts: int
    before: float
    loss: float
    """P@1 before, less with the neurons off."""
    interval: Interval
    """95 %, over facts, each with and without the neurons."""
    null: float
    """Mean loss with as many random neurons in each layer off."""
    p: float
    """Rank of the loss among those; at least 1 / (draws + 1)."""
    draws: int
    seed: int


def knowledge_without_neurons(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    table: FactTable,
    neurons: NeuronSet,
    *,
    ranking: RankingRule = "corrected",
    draws: int = 3,
    seed: int = 0,
    progress: bool = False,
) -> list[KnowledgeLoss]:
    """Ask every language of the table with each language's neurons off, and with layer-matched random ones off.

    A loss in the neurons' own language alone says that they serve the language; a loss in all languages that they
    carry what is known. Rankings compare objects within one language, so that a model that only leaves the language
    loses nothing here for that alone.
    Raises LanguageError where table and neurons share no language, ArtifactError for neurons of another model.
    """
    layout, controls = layout_of(model), neuron_controls(model, tokenizer, table, neurons, draws=draws, seed=seed)

    def right_without(mask: Bool[Tensor, "layer neuron"]) -> dict[Language, np.ndarray]:
        with switched_off(layout, mask, at=neurons.at):  # pyright: ignore[reportArgumentType]
            return rights(model, tokenizer, table, ranking)

    untouched, losses = rights(model, tokenizer, table, ranking), []
    rng = np.random.default_rng(seed)
    tags = [tag for tag in neurons.languages if tag in table.languages]
    for tag in with_progress(tags, unit="set", desc="facts without neurons", shown=progress):
        row = neurons.index(tag)
        off = right_without(neurons.mask()[row])
        random = [right_without(mask) for mask in controls[:, row]]
        for asked_in in table.languages:
            before = untouched[asked_in]
            change = before - off[asked_in]
            interval = mean_interval(change, RESAMPLES, rng)
            null = [float((before - right[asked_in]).mean()) for right in random]
            loss = float(change.mean())
            losses.append(
                KnowledgeLoss(
                    tag,
                    asked_in,
                    len(before),
                    float(before.mean()),
                    loss,
                    interval,
                    float(np.mean(null)),
                    rank_p(loss, null),
                    draws,
                    seed,
                )
            )
    return losses


def neuron_controls(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    table: FactTable,
    neurons: NeuronSet,
    *,
    draws: int,
    seed: int,
) -> Bool[Tensor, "draw language layer neuron"]:
    """Layer-matched random sets of a model's neurons; raises as `knowledge_without_neurons`."""
    check_made_for(neurons.origin, model, tokenizer, "neurons")
    if not {*neurons.languages} & {*table.languages}:
        raise LanguageError(
            f"neurons of {', '.join(neurons.languages)}, facts in {', '.join(table.languages)}; expected a language "
            "that both have; choose others"
        )
    return layer_matched(neurons, draws=draws, seed=seed)


def rights(
    model: CausalModel, tokenizer: PreTrainedTokenizerBase, table: FactTable, ranking: RankingRule
) -> dict[Language, np.ndarray]:
    """1 or 0 for each fact that is asked in a language."""
    knowledge = rank_objects(model, tokenizer, table, ranking=ranking)
    right, was_asked = knowledge.right.numpy(), knowledge.asked.numpy()
    return {tag: right[row, was_asked[row]].astype(float) for row, tag in enumerate(knowledge.languages)}


def loss_rows(losses: Sequence[KnowledgeLoss]) -> list[SiteEvidence]:
    """A row per language of the neurons and language of the questions."""
    return [
        SiteEvidence(
            claim="P@1 lost with a language's neurons off",
            language=loss.neurons,
            against=loss.asked_in,
            control="layer_matched",
            n=loss.facts,
            estimate=loss.loss,
            low=loss.interval.low,
            high=loss.interval.high,
            p=loss.p,
            null=loss.null,
            draws=loss.draws,
            seed=loss.seed,
            note=f"P@1 before {loss.before:.3f}; asked in `against`",
        )
        for loss in losses
    ]
