"""What edits of several facts are compared on: methods and their controls, numbers, and places to choose from."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np

from babelscope.adaptation.editing.demonstrations import ShownIn, draw_demonstrations
from babelscope.adaptation.editing.edit_objective import DescentSettings
from babelscope.adaptation.editing.fact_editing import KEY_TOKENS, WEIGHT_METHODS, EditPlace, WeightMethod
from babelscope.adaptation.editing.memit import SPAN, WEIGHT
from babelscope.adaptation.editing.planned_edits import FactEdit, check_edit, edit_contexts, plan_edits
from babelscope.errors import LanguageError, MeasurementError
from babelscope.languages import Language
from babelscope.models import Layout
from babelscope.probes.knowledge import FactTable

EditMethod = Literal["in context", "demonstrations", "rank one", "few neurons", "memit"]
CONTROL = {
    "in context": "a true sentence in context",
    "demonstrations": "a true sentence after the same demonstrations",
    "rank one": "a random value at the same key",
    "few neurons": "random columns of the same neurons",
    "memit": "random values at the same keys",
}
"""What each method is compared with: as large, at the same place, and without the fact."""
NO_EDIT = "no edit"
DEPTHS = (1 / 6, 1 / 3, 1 / 2)
"""Of the layers that are tried on held-out facts, where none are named."""


@dataclass(frozen=True, kw_only=True)
class EditStudy:
    """What is edited, how, and what is asked."""

    language: str = "en"
    """In which the edits are told."""
    methods: tuple[EditMethod, ...] = ("in context", "rank one", "few neurons")
    edits: int = 8
    """Facts that are edited and scored: one after the other, or by MEMIT at once."""
    held_out: int = 3
    """Other facts, on which layer and number of neurons are chosen."""
    neighbours: int = 2
    """Other facts of the relation that are not edited, asked about each edit."""
    asked_after: int = 2
    """Sentences after which an edit is asked too, others than it was made with."""
    layers: tuple[int, ...] = ()
    """To choose from; none takes a sixth, a third and a half of the depth."""
    neurons: tuple[int, ...] = (16, 64)
    """Numbers of neurons to choose from."""
    span: int = SPAN
    """MEMIT: layers of a change, up to the chosen one."""
    weights: tuple[float, ...] = (0.01, WEIGHT)
    """MEMIT: weights of the second moment to choose from, in numbers of neurons."""
    demonstrations: int = 4
    """Worked examples before the edited fact, where the method is of that name."""
    shown_in: ShownIn = "asked"
    """In whose language they ask and answer."""
    key_tokens: int = KEY_TOKENS
    """Of each language, for the second moment of the keys."""
    new_tokens: int = 12
    """Of each greedy answer; 0 leaves them out."""
    settings: DescentSettings = field(default_factory=DescentSettings)
    resamples: int = 1_000
    """Of edits, for intervals."""
    seed: int = 0

    @property
    def weight_methods(self) -> tuple[WeightMethod, ...]:
        """Those that change weights."""
        return tuple(method for method in WEIGHT_METHODS if method in self.methods)

    def check(self, table: FactTable) -> None:
        """Raise, before the model is opened, where the table does not allow what is asked for."""
        tag = Language.parse(self.language)
        if tag not in table.languages or len(table.languages) < 2:
            raise LanguageError(
                f"facts in {', '.join(table.languages)} came; expected {self.language}, in which edits are told, and "
                "at least one other language; name both"
            )
        if unknown := [method for method in self.methods if method not in get_args(EditMethod)]:
            raise MeasurementError(
                f"method {unknown[0]!r} came; expected some of {', '.join(get_args(EditMethod))}; correct it"
            )
        if self.shown_in not in get_args(ShownIn):
            raise MeasurementError(
                f"demonstrations in {self.shown_in!r} came; expected one of {', '.join(get_args(ShownIn))}; correct it"
            )
        if "demonstrations" in self.methods and self.demonstrations < 1:
            raise MeasurementError(
                f"{self.demonstrations} demonstrations came; expected at least one; leave the method out for none"
            )
        if self.asked_after < 1 or self.neighbours < 1 or not self.methods:
            raise MeasurementError(
                f"{self.asked_after} sentences to ask after, {self.neighbours} neighbours and {len(self.methods)} "
                "methods came; expected at least one of each; raise the numbers"
            )
        planned = plan_edits(table, tag, seed=self.seed)
        if min(self.edits, self.held_out) < 1 or len(planned) < self.edits + self.held_out:
            raise MeasurementError(
                f"{self.edits} edits and {self.held_out} held out came, and {table.name} has {len(planned)} facts that "
                "can be edited in these languages; expected at least one of each, and no more than there are; change "
                "the numbers"
            )
        edits, free = planned[self.held_out :][: self.edits], not_edited(planned, self)
        for edit in edits if "demonstrations" in self.methods else ():
            draw_demonstrations(table, edit, free, count=self.demonstrations, rng=np.random.default_rng(0))
        for edit in planned[: self.edits + self.held_out]:
            check_edit(table, edit)
            edit_contexts(
                table, edit, count=self.settings.contexts + self.asked_after + 1, rng=np.random.default_rng(0)
            )

    def places(self, method: WeightMethod, layout: Layout) -> list[EditPlace]:
        """The places to choose from.

        Raises PrerequisiteError for a layer that the model lacks or that cannot be edited, and MeasurementError for
        more neurons than a layer has.
        """
        layers = self.layers or tuple(dict.fromkeys(int(depth * layout.n_layers) for depth in DEPTHS))
        places = {
            "rank one": lambda layer: [EditPlace(method, layer)],
            "few neurons": lambda layer: [EditPlace(method, layer, count) for count in self.neurons],
            "memit": lambda layer: [EditPlace(method, layer, span=self.span, weight=value) for value in self.weights],
        }
        most, width = max(self.neurons, default=0), layout.width("mlp_inner")
        if method == "few neurons" and most > width:
            raise MeasurementError(f"{most} neurons came; a layer has {width}; name no more than these")
        chosen = [place for layer in layers for place in places[method](layer)]
        for place in chosen:
            place.check(layout)
        if not chosen:
            raise MeasurementError(f"{method}: no place to choose from came; expected at least one; name some")
        return chosen


def not_edited(planned: Sequence[FactEdit], study: EditStudy) -> list[FactEdit]:
    """The planned edits that a study does not score: of their facts others are asked, and examples are made."""
    scored = planned[study.held_out :][: study.edits]
    return [edit for edit in planned if edit not in scored]
