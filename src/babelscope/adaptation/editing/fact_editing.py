"""Edit one fact of a model: by a text before the question, by a change of rank one, or by a few neurons."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerBase

from babelscope.adaptation.editing.edit_objective import DescentSettings, EditTask, check_editable
from babelscope.adaptation.editing.few_neurons import few_neurons_edit, random_columns
from babelscope.adaptation.editing.planned_edits import FactEdit, check_edit, edit_contexts
from babelscope.adaptation.editing.rank_one import (
    KeyMoments,
    as_delta,
    key_moments,
    random_rank_one,
    rank_one_edit,
)
from babelscope.axes import Float64, Tensor
from babelscope.corpus import Corpus, load_corpus
from babelscope.models import Layout, layout_of
from babelscope.models.plain import CausalModel
from babelscope.probes.knowledge import FactTable
from babelscope.subnetworks import Delta, ElementDelta

WeightMethod = Literal["rank one", "few neurons"]
WEIGHT_METHODS: tuple[WeightMethod, ...] = ("rank one", "few neurons")
NEURONS = 64
"""Of one layer, where nothing else is said."""
KEY_TOKENS = 2_000
"""Of each language, for the second moment of the keys."""


class EditPlace(NamedTuple):
    """Where an edit of weights is made."""

    method: WeightMethod
    layer: int
    neurons: int = NEURONS
    """Few neurons: how many."""


class WeightEdit(NamedTuple):
    """An edit and its control, which is as large, at the same place, and random."""

    change: ElementDelta | Delta
    random: ElementDelta | Delta


@dataclass(frozen=True, eq=False)
class FactEditor:
    """Makes edits of one model; the model is as before after each."""

    layout: Layout
    tokenizer: PreTrainedTokenizerBase
    table: FactTable
    moments: KeyMoments
    settings: DescentSettings = field(default_factory=DescentSettings)

    def edit(self, edit: FactEdit, place: EditPlace, contexts: Sequence[str], *, seed: int) -> WeightEdit:
        """One edit and its random control."""
        task = EditTask.of(self.layout, self.tokenizer, self.table, edit, contexts, place.layer)
        if place.method == "few neurons":
            delta = few_neurons_edit(task, place.neurons, self.settings)
            return WeightEdit(delta, random_columns(delta, seed=seed))
        delta, change = rank_one_edit(task, self.moments, self.settings)
        random = as_delta(task, random_rank_one(change, seed=seed), {"method": "random value, same key"})
        return WeightEdit(delta, random)


def edit_fact(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    table: FactTable,
    edit: FactEdit,
    *,
    method: WeightMethod = "rank one",
    layer: int | None = None,
    neurons: int = NEURONS,
    text: Corpus | None = None,
    settings: DescentSettings | None = None,
    seed: int = 0,
) -> ElementDelta | Delta:
    """A change of weights after which a model gives a fact another object; `change.apply(model)` makes the edit.

    rank one: W' = W + (v - W k)(C⁻¹k)ᵀ / (kᵀC⁻¹k) of one layer's down projection W, with k the mean inner activation
    at the subject's last token, v - W k what makes the new object likely there, and C the second moment of inner
    activations over `text` (None: the bundled corpus). An ElementDelta of all values of W.
    few neurons: what the `neurons` neurons with the steepest gradient write, wherever they fire. A Delta.
    layer: None takes the one at a third of the depth; `measure_edits` chooses it on other facts.
    The model is afterwards as before. Raises LanguageError and MeasurementError for an edit that cannot be told,
    PrerequisiteError for a mixture of experts, and for weights that cannot be written.
    Source of the change of rank one: Meng et al. 2022, arXiv:2202.05262; differs: contexts are other facts of the
    table and no text that the model wrote, and the divergence is of the token after the subject.
    """
    check_edit(table, edit)
    layout = layout_of(model)
    at = layout.n_layers // 3 if layer is None else layer
    check_editable(layout, at)
    settings = settings or DescentSettings()
    contexts = edit_contexts(table, edit, count=settings.contexts, rng=np.random.default_rng(seed))
    moments = KeyMoments(())
    if method == "rank one":
        corpus = load_corpus("reference", split="train") if text is None else text
        moments = key_moments(layout, tokenizer, corpus, [at], tokens_per_language=KEY_TOKENS)
    editor = FactEditor(layout, tokenizer, table, moments, settings)
    return editor.edit(edit, EditPlace(method, at, neurons), contexts, seed=seed).change


def edit_size(change: ElementDelta | Delta) -> Float64[Tensor, ""]:
    """Frobenius norm of a change."""
    parts = [part.values for part in change.elements.values()] if isinstance(change, ElementDelta) else [change.down]
    return sum((part.double().square().sum() for part in parts), start=parts[0].new_zeros(()).double()).sqrt()
