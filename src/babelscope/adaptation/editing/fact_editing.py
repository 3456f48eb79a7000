"""Edit facts of a model: one by a change of rank one or by a few neurons, or several at once by MEMIT."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerBase

from babelscope.adaptation.editing.edit_objective import (
    DescentEnd,
    DescentSettings,
    EditTask,
    check_editable,
    value_at_subject,
)
from babelscope.adaptation.editing.few_neurons import few_neurons_edit, random_columns
from babelscope.adaptation.editing.memit import SPAN, WEIGHT, check_spreadable, memit_edit
from babelscope.adaptation.editing.planned_edits import FactEdit, check_edit, check_edits_agree, edit_contexts
from babelscope.adaptation.editing.rank_one import (
    KeyMoments,
    as_delta,
    key_moments,
    random_rank_one,
    rank_one_edit,
)
from babelscope.axes import Float64, Tensor
from babelscope.corpus import Corpus, load_corpus
from babelscope.errors import MeasurementError
from babelscope.models import Layout, layout_of
from babelscope.models.plain import CausalModel
from babelscope.probes.knowledge import FactTable
from babelscope.subnetworks import Delta, ElementDelta

WeightMethod = Literal["rank one", "few neurons", "memit"]
WEIGHT_METHODS: tuple[WeightMethod, ...] = ("rank one", "few neurons", "memit")
BY_KEYS: tuple[WeightMethod, ...] = ("rank one", "memit")
"""Those that need the second moment of keys."""
NEURONS = 64
"""Of one layer, where nothing else is said."""
KEY_TOKENS = 2_000
"""Of each language, for the second moment of the keys."""


class EditPlace(NamedTuple):
    """Where an edit of weights is made."""

    method: WeightMethod
    layer: int
    """MEMIT: the last one."""
    neurons: int = 0
    """Few neurons: how many."""
    span: int = 1
    """MEMIT: how many layers, or as many as there are up to the last one."""
    weight: float = 0.0
    """MEMIT: λ in numbers of neurons."""

    @property
    def layers(self) -> tuple[int, ...]:
        """All of them, ascending."""
        return tuple(range(max(0, self.layer + 1 - self.span), self.layer + 1))

    def check(self, layout: Layout) -> None:
        """Raise PrerequisiteError for a layer that the model lacks or that cannot be edited, MeasurementError for a
        number that is none."""
        check_editable(layout, self.layer)
        if self.method == "memit":
            check_spreadable(layout)
            if self.span < 1 or not 0 < self.weight < float("inf"):
                raise MeasurementError(
                    f"{self.span} layers and a weight of {self.weight} came; expected at least one layer and a finite "
                    "weight above 0; correct them"
                )
            for layer in self.layers:
                check_editable(layout, layer)


class WeightEdit(NamedTuple):
    """A change of weights and its control, which is as large, at the same place, and random."""

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
    ends: dict[tuple[FactEdit, tuple[str, ...], int], DescentEnd] = field(default_factory=dict)
    """Values by edit, contexts and layer: rank one and MEMIT both begin with them."""

    def edit(
        self, edits: Sequence[FactEdit], place: EditPlace, contexts: Sequence[Sequence[str]], *, seed: int
    ) -> WeightEdit:
        """Edits as one change, and its random control; only MEMIT makes several at once.

        contexts: of each edit, the sentences that it is made after too.
        """
        tasks = [
            EditTask.of(self.layout, self.tokenizer, self.table, edit, before, place.layer)
            for edit, before in zip(edits, contexts, strict=True)
        ]
        if place.method == "few neurons":
            delta = few_neurons_edit(tasks[0], place.neurons, self.settings)
            return WeightEdit(delta, random_columns(delta, seed=seed))
        ends = [
            self.end(task, (edit, tuple(before), place.layer))
            for task, edit, before in zip(tasks, edits, contexts, strict=True)
        ]
        if place.method == "memit":
            return WeightEdit(*memit_edit(tasks, ends, self.moments, place.layers, weight=place.weight, seed=seed))
        delta, change = rank_one_edit(tasks[0], self.moments, ends[0])
        random = {place.layer: random_rank_one(change, seed=seed).matrix()}
        return WeightEdit(delta, as_delta(tasks, random, {"method": "random value, same key", "layer": place.layer}))

    def end(self, task: EditTask, name: tuple[FactEdit, tuple[str, ...], int]) -> DescentEnd:
        """The value of one fact, descended once."""
        if name not in self.ends:
            self.ends[name] = value_at_subject(task, self.settings)
        return self.ends[name]


def edit_fact(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    table: FactTable,
    edit: FactEdit,
    *,
    method: Literal["rank one", "few neurons"] = "rank one",
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
    at = layout_of(model).n_layers // 3 if layer is None else layer
    place = EditPlace(method, at, neurons)
    return _edited(model, tokenizer, table, [edit], place, text=text, settings=settings, seed=seed)


def edit_facts(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    table: FactTable,
    edits: Sequence[FactEdit],
    *,
    layer: int | None = None,
    span: int = SPAN,
    weight: float = WEIGHT,
    text: Corpus | None = None,
    settings: DescentSettings | None = None,
    seed: int = 0,
) -> ElementDelta:
    """One change of weights after which a model gives several facts other objects, spread over layers as MEMIT does.

    W' = W + R Kᵀ (λC + K Kᵀ)⁻¹ in each of `span` layers that end with `layer` (None: the one at a third of the depth;
    where fewer are below it, as many as there are): see `memit_edit`. A fact may be told in several languages.
    weight: λ in numbers of neurons; the smaller, the closer the facts are met and the more other text moves.
    text: for C, as in `edit_fact`. One fact and one layer are s / (s + λ) of the change of rank one, s = kᵀC⁻¹k, in
    families without a norm after the MLP.
    Raises as `edit_fact` does, and MeasurementError for edits that contradict each other.
    Source: Meng et al. 2023, arXiv:2210.07229.
    """
    check_edits_agree(edits)
    at = layout_of(model).n_layers // 3 if layer is None else layer
    place = EditPlace("memit", at, span=span, weight=weight)
    change = _edited(model, tokenizer, table, edits, place, text=text, settings=settings, seed=seed)
    assert isinstance(change, ElementDelta)
    return change


def _edited(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    table: FactTable,
    edits: Sequence[FactEdit],
    place: EditPlace,
    *,
    text: Corpus | None,
    settings: DescentSettings | None,
    seed: int,
) -> ElementDelta | Delta:
    """What both functions above do once they know where."""
    for edit in edits:
        check_edit(table, edit)
    layout, settings = layout_of(model), settings or DescentSettings()
    place.check(layout)
    contexts = [edit_contexts(table, edit, count=settings.contexts, rng=np.random.default_rng(seed)) for edit in edits]
    moments = KeyMoments(())
    if place.method in BY_KEYS:
        corpus = load_corpus("reference", split="train") if text is None else text
        moments = key_moments(layout, tokenizer, corpus, place.layers, tokens_per_language=KEY_TOKENS)
    editor = FactEditor(layout, tokenizer, table, moments, settings)
    return editor.edit(edits, place, contexts, seed=seed).change


def edit_size(change: ElementDelta | Delta) -> Float64[Tensor, ""]:
    """Frobenius norm of a change."""
    parts = [part.values for part in change.elements.values()] if isinstance(change, ElementDelta) else [change.down]
    return sum((part.double().square().sum() for part in parts), start=parts[0].new_zeros(()).double()).sqrt()
