"""Edits of several facts by several methods, asked in every language, with controls of equal size."""

import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from statistics import harmonic_mean
from typing import Literal, NamedTuple, get_args

import numpy as np
from transformers import PreTrainedTokenizerBase

from babelscope.adaptation.editing.edit_objective import DescentSettings, check_editable
from babelscope.adaptation.editing.edit_questions import (
    EditOutcome,
    EditQuestion,
    OptionScores,
    ask,
    neighbours_of,
    outcome_of,
    questions_about,
    two_step_table,
)
from babelscope.adaptation.editing.fact_editing import (
    KEY_TOKENS,
    WEIGHT_METHODS,
    EditPlace,
    FactEditor,
    WeightMethod,
    edit_size,
)
from babelscope.adaptation.editing.greedy_answers import EditAnswer, greedy_answers
from babelscope.adaptation.editing.planned_edits import FactEdit, check_edit, edit_contexts, plan_edits
from babelscope.adaptation.editing.rank_one import KeyMoments, key_moments
from babelscope.corpus import Corpus, load_corpus
from babelscope.errors import LanguageError, MeasurementError
from babelscope.languages import Language
from babelscope.models import Layout, layout_of
from babelscope.models.plain import CausalModel
from babelscope.probes.knowledge import FactTable

log = logging.getLogger(__name__)
EditMethod = Literal["in context", "rank one", "few neurons"]
CONTROL = {
    "in context": "a true sentence in context",
    "rank one": "a random value at the same key",
    "few neurons": "random columns of the same neurons",
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
    """Facts that are edited, one after the other, and scored."""
    held_out: int = 3
    """Other facts, on which layer and number of neurons are chosen."""
    neighbours: int = 2
    """Other facts of the relation, asked about each edit."""
    asked_after: int = 2
    """Sentences after which an edit is asked too, others than it was made with."""
    layers: tuple[int, ...] = ()
    """To choose from; none takes a sixth, a third and a half of the depth."""
    neurons: tuple[int, ...] = (16, 64)
    """Numbers of neurons to choose from."""
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
        for edit in planned[: self.edits + self.held_out]:
            check_edit(table, edit)
            edit_contexts(
                table, edit, count=self.settings.contexts + self.asked_after + 1, rng=np.random.default_rng(0)
            )

    def tried_layers(self, layout: Layout) -> tuple[int, ...]:
        """The layers to choose from.

        Raises PrerequisiteError for one that the model lacks or that cannot be edited, and MeasurementError for more
        neurons than a layer has.
        """
        layers = self.layers or tuple(dict.fromkeys(int(depth * layout.n_layers) for depth in DEPTHS))
        for layer in layers:
            check_editable(layout, layer)
        most, width = max(self.neurons, default=0), layout.width("mlp_inner")
        if "few neurons" in self.methods and most > width:
            raise MeasurementError(f"{most} neurons came; a layer has {width}; name no more than these")
        return layers


class EditTrial(NamedTuple):
    """One place, tried on the held-out facts in the language of the edits; shares of questions."""

    place: EditPlace
    reliability: float
    generality: float
    locality: float
    margin: float
    """Mean margin of the new object after other sentences, in nats per token."""

    @property
    def score(self) -> float:
        """Harmonic mean of the shares, 0 where one is; without locality where no fact has a neighbour."""
        shares = (self.reliability, self.generality, self.locality)
        return float(harmonic_mean([share for share in shares if not math.isnan(share)]))


def mean_or_nan(values: Sequence[float | bool]) -> float:
    """Mean of some values; NaN where there is none."""
    return float(np.mean(values)) if values else math.nan


@dataclass(frozen=True, eq=False, kw_only=True)
class EditFindings:
    """What was measured."""

    study: EditStudy
    table: FactTable
    edits: tuple[FactEdit, ...]
    trials: tuple[EditTrial, ...]
    places: dict[str, EditPlace]
    """Of each method that changes weights: the chosen one."""
    sizes: dict[str, list[float]]
    """Frobenius norm of each edit, by method."""
    outcomes: tuple[EditOutcome, ...]
    answers: tuple[EditAnswer, ...]


class AskedEdit(NamedTuple):
    """One edit with its texts and its questions, and the answers of the model as it is."""

    edit: FactEdit
    contexts: list[str]
    unrelated: str
    """A true sentence, told in place of the edited one by the control in context."""
    questions: list[EditQuestion]
    before: list[OptionScores]


@dataclass(eq=False)
class EditBench:
    """A model with everything that each edit needs, and what was measured so far."""

    editor: FactEditor
    study: EditStudy
    table: FactTable
    """With templates of two steps."""
    outcomes: list[EditOutcome] = field(default_factory=list)
    answers: list[EditAnswer] = field(default_factory=list)
    sizes: dict[str, list[float]] = field(default_factory=dict)

    def prepare(
        self, edits: Sequence[FactEdit], among: Sequence[FactEdit], languages: Sequence[Language]
    ) -> Iterator[AskedEdit]:
        """The questions about each edit, and their answers before it."""
        study = self.study
        for number, edit in enumerate(edits):
            rng = np.random.default_rng([study.seed, number])
            texts = edit_contexts(self.table, edit, count=study.settings.contexts + study.asked_after + 1, rng=rng)
            contexts, (unrelated, *others) = texts[: study.settings.contexts], texts[study.settings.contexts :]
            neighbours = neighbours_of(self.table, edit, among, count=study.neighbours, rng=rng)
            questions = questions_about(self.table, edit, neighbours, contexts=others, languages=languages)
            yield AskedEdit(edit, contexts, unrelated, questions, self.ask(questions))

    def ask(self, questions: Sequence[EditQuestion], told: str = "") -> list[OptionScores]:
        """Answers of the model as it is now."""
        return ask(self.editor.layout, self.editor.tokenizer, self.table, questions, told=told)

    def outcomes_now(self, method: str, number: int, asked: AskedEdit, told: str = "") -> list[EditOutcome]:
        """Answers of the model as it is now, beside those from before."""
        after = self.ask(asked.questions, told)
        parts = zip(asked.questions, asked.before, after, strict=True)
        return [outcome_of(method, number, question, old, new) for question, old, new in parts]

    def try_place(self, place: EditPlace, held_out: Sequence[AskedEdit]) -> EditTrial:
        """Shares at one place, on the held-out facts."""
        rows = list[EditOutcome]()
        for number, asked in enumerate(held_out):
            change = self.editor.edit(asked.edit, place, asked.contexts, seed=self.study.seed).change
            with change.applied(self.editor.layout.model):
                rows += self.outcomes_now(place.method, number, asked)
        values = {
            "reliability": [row.after > 0 for row in rows if row.aspect == "efficacy"],
            "generality": [row.after > 0 for row in rows if row.aspect == "generality"],
            "locality": [row.unchanged for row in rows if row.aspect == "locality"],
            "margin": [row.after for row in rows if row.aspect == "generality"],
        }
        return EditTrial(place, **{name: mean_or_nan(part) for name, part in values.items()})

    def measure(self, method: str, number: int, asked: AskedEdit, place: EditPlace | None) -> None:
        """Add what one edit by one method gave, and what its control did."""
        model, control = self.editor.layout.model, CONTROL[method]
        if place is None:
            versions = [(method, None, asked.edit.sentence(self.table)), (control, None, asked.unrelated)]
        else:
            pair = self.editor.edit(asked.edit, place, asked.contexts, seed=self.study.seed + number)
            self.sizes.setdefault(method, []).append(float(edit_size(pair.change)))
            versions = [(method, pair.change, ""), (control, pair.random, "")]
        for name, change, told in versions:
            with nullcontext() if change is None else change.applied(model):
                self.outcomes += self.outcomes_now(name, number, asked, told)
                if name == method:
                    self.answer(method, number, asked, told)

    def answer(self, method: str, number: int, asked: AskedEdit, told: str = "") -> None:
        """Add greedy answers about the edited fact in every language."""
        editor, length = self.editor, self.study.new_tokens
        if length:
            self.answers += greedy_answers(
                editor.layout.model, editor.tokenizer, self.table, asked.edit, method, number, told=told, length=length
            )


def measure_edits(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    table: FactTable,
    *,
    study: EditStudy | None = None,
    text: Corpus | None = None,
) -> EditFindings:
    """Edit facts in one language, one after the other, and ask about each in every language of the table.

    Each edit is made by each method and by its control, and is taken out again bit for bit. Layer and number of
    neurons are those with the best score (`EditTrial.score`) on held-out facts, asked in the language of the edits.
    text: ordinary text of all languages for the second moment of the keys; None is the bundled corpus.
    Raises LanguageError and MeasurementError where the table does not allow what the study asks for,
    PrerequisiteError for a model that cannot be edited.
    Sources: ROME, arXiv:2202.05262; editing in context across languages, BMIKE-53, arXiv:2406.17764.
    """
    study = study or EditStudy()
    study.check(table)
    layout, tag = layout_of(model), Language.parse(study.language)
    planned = plan_edits(table, tag, seed=study.seed)
    held_out, edits = planned[: study.held_out], planned[study.held_out :][: study.edits]
    moments = KeyMoments(())
    layers = study.tried_layers(layout) if study.weight_methods else ()
    if "rank one" in study.methods:
        corpus = load_corpus("reference", split="train") if text is None else text
        moments = key_moments(layout, tokenizer, corpus, layers, tokens_per_language=study.key_tokens)
    editor = FactEditor(layout, tokenizer, table, moments, study.settings)
    bench = EditBench(editor, study, two_step_table(table, planned))
    tried = [*bench.prepare(held_out, planned, [tag])] if study.weight_methods else []
    trials, places = list[EditTrial](), dict[str, EditPlace]()
    for method in study.weight_methods:
        sizes = study.neurons if method == "few neurons" else (0,)
        of_method = [bench.try_place(EditPlace(method, layer, n), tried) for layer in layers for n in sizes]
        places[method] = max(of_method, key=lambda trial: (trial.score, trial.margin)).place
        trials += of_method
        log.info("%s: layer %d chosen on %d held-out facts", method, places[method].layer, len(tried))
    for number, asked in enumerate(bench.prepare(edits, planned, table.languages)):
        bench.answer(NO_EDIT, number, asked)
        for method in study.methods:
            bench.measure(method, number, asked, places.get(method))
        log.info("edit %d of %d measured", number + 1, len(edits))
    return EditFindings(
        study=study,
        table=table,
        edits=tuple(edits),
        trials=tuple(trials),
        places=places,
        sizes=bench.sizes,
        outcomes=tuple(bench.outcomes),
        answers=tuple(bench.answers),
    )
