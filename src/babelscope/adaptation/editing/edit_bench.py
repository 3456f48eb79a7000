"""Edits of several facts by several methods, asked in every language, with controls of equal size."""

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from statistics import harmonic_mean
from typing import NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerBase

from babelscope.adaptation.editing.demonstrations import draw_demonstrations, shown_before
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
from babelscope.adaptation.editing.edit_study import CONTROL, NO_EDIT, EditStudy, not_edited
from babelscope.adaptation.editing.fact_editing import BY_KEYS, EditPlace, FactEditor, WeightEdit, edit_size
from babelscope.adaptation.editing.greedy_answers import EditAnswer, greedy_answers
from babelscope.adaptation.editing.planned_edits import FactEdit, edit_contexts, plan_edits
from babelscope.adaptation.editing.rank_one import KeyMoments, key_moments
from babelscope.corpus import Corpus, load_corpus
from babelscope.languages import Language
from babelscope.models import layout_of
from babelscope.models.plain import CausalModel
from babelscope.probes.knowledge import FactTable
from babelscope.subnetworks import Delta, ElementDelta

log = logging.getLogger(__name__)


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
    texts: dict[str, dict[Language, str]]
    """What stands before a question, by method or control and by language."""
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
        """The questions about each edit, and their answers before it; among: edits that are not made."""
        study = self.study
        for number, edit in enumerate(edits):
            rng = np.random.default_rng([study.seed, number])
            texts = edit_contexts(self.table, edit, count=study.settings.contexts + study.asked_after + 1, rng=rng)
            contexts, (unrelated, *others) = texts[: study.settings.contexts], texts[study.settings.contexts :]
            neighbours = neighbours_of(self.table, edit, among, count=study.neighbours, rng=rng)
            questions = questions_about(self.table, edit, neighbours, contexts=others, languages=languages)
            before = self.texts_before(edit, unrelated, among, rng)
            yield AskedEdit(edit, contexts, before, questions, self.ask(questions, {}))

    def texts_before(
        self, edit: FactEdit, unrelated: str, among: Sequence[FactEdit], rng: np.random.Generator
    ) -> dict[str, dict[Language, str]]:
        """What stands before the questions about an edit; its control tells an unrelated sentence in its place."""
        counts = {"in context": 0, "demonstrations": self.study.demonstrations}
        texts = dict[str, dict[Language, str]]()
        for method in [name for name in self.study.methods if name in counts]:
            examples = draw_demonstrations(self.table, edit, among, count=counts[method], rng=rng)
            for name, sentence in ((method, edit.sentence(self.table)), (CONTROL[method], unrelated)):
                texts[name] = shown_before(
                    self.table, examples, sentence, shown_in=self.study.shown_in, edited_in=edit.language
                )
        return texts

    def ask(self, questions: Sequence[EditQuestion], told: Mapping[Language, str]) -> list[OptionScores]:
        """Answers of the model as it is now."""
        return ask(self.editor.layout, self.editor.tokenizer, self.table, questions, told=told)

    def outcomes_now(self, method: str, number: int, asked: AskedEdit) -> list[EditOutcome]:
        """Answers of the model as it is now, beside those from before."""
        after = self.ask(asked.questions, asked.texts.get(method, {}))
        parts = zip(asked.questions, asked.before, after, strict=True)
        return [outcome_of(method, number, question, old, new) for question, old, new in parts]

    def change(self, edits: Sequence[AskedEdit], place: EditPlace, *, seed: int) -> WeightEdit:
        """These edits as one change."""
        contexts = [asked.contexts for asked in edits]
        return self.editor.edit([asked.edit for asked in edits], place, contexts, seed=seed)

    def try_place(self, place: EditPlace, held_out: Sequence[AskedEdit]) -> EditTrial:
        """Shares at one place, on the held-out facts."""
        rows = list[EditOutcome]()
        for group in edits_by_change(place.method, held_out):
            with self.change([*group.values()], place, seed=self.study.seed).change.applied(self.editor.layout.model):
                for number, asked in group.items():
                    rows += self.outcomes_now(place.method, number, asked)
        values = {
            "reliability": [row.after > 0 for row in rows if row.aspect == "efficacy"],
            "generality": [row.after > 0 for row in rows if row.aspect == "generality"],
            "locality": [row.unchanged for row in rows if row.aspect == "locality"],
            "margin": [row.after for row in rows if row.aspect == "generality"],
        }
        return EditTrial(place, **{name: mean_or_nan(part) for name, part in values.items()})

    def measure(self, method: str, group: Mapping[int, AskedEdit], place: EditPlace | None) -> None:
        """Add what one change that makes these edits gave, and what its control did; None: texts before questions."""
        changes: tuple[ElementDelta | Delta | None, ...] = (None, None)
        if place is not None:
            changes = self.change([*group.values()], place, seed=self.study.seed + min(group))
            self.sizes.setdefault(method, []).append(float(edit_size(changes.change)))
        for name, change in zip((method, CONTROL[method]), changes, strict=True):
            with nullcontext() if change is None else change.applied(self.editor.layout.model):
                for number, asked in group.items():
                    self.outcomes += self.outcomes_now(name, number, asked)
                    if name == method:
                        self.answer(method, number, asked)

    def answer(self, method: str, number: int, asked: AskedEdit) -> None:
        """Add greedy answers about the edited fact in every language."""
        editor, told = self.editor, asked.texts.get(method, {})
        if self.study.new_tokens:
            self.answers += greedy_answers(
                editor.layout.model, editor.tokenizer, self.table, asked.edit, method, number, told=told,
                length=self.study.new_tokens,
            )  # fmt: skip


def edits_by_change(method: str, asked: Sequence[AskedEdit]) -> list[dict[int, AskedEdit]]:
    """Edits that are made by one change, by their numbers: all of them by MEMIT, and each by itself by the rest."""
    numbered = dict(enumerate(asked))
    return [numbered] if method == "memit" else [{number: part} for number, part in numbered.items()]


def measure_edits(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    table: FactTable,
    *,
    study: EditStudy | None = None,
    text: Corpus | None = None,
) -> EditFindings:
    """Edit facts in one language, and ask about each in every language of the table.

    Each edit is made by each method and by its control, and is taken out again bit for bit; MEMIT makes all of them at
    once. Layer, number of neurons and weight are those with the best score (`EditTrial.score`) on held-out facts, asked
    in the language of the edits; one place alone is not tried.
    text: ordinary text of all languages for the second moment of the keys; None is the bundled corpus.
    Raises LanguageError and MeasurementError where the table does not allow what the study asks for,
    PrerequisiteError for a model that cannot be edited.
    Sources: ROME, arXiv:2202.05262; MEMIT, arXiv:2210.07229; editing in context across languages,
    BMIKE-53, arXiv:2406.17764.
    """
    study = study or EditStudy()
    study.check(table)
    layout, tag = layout_of(model), Language.parse(study.language)
    planned = plan_edits(table, tag, seed=study.seed)
    held_out, edits = planned[: study.held_out], planned[study.held_out :][: study.edits]
    choices = {method: study.places(method, layout) for method in study.weight_methods}
    layers = sorted({layer for method in BY_KEYS for place in choices.get(method, ()) for layer in place.layers})
    moments = KeyMoments(())
    if layers:
        corpus = load_corpus("reference", split="train") if text is None else text
        moments = key_moments(layout, tokenizer, corpus, layers, tokens_per_language=study.key_tokens)
    editor = FactEditor(layout, tokenizer, table, moments, study.settings)
    bench = EditBench(editor, study, two_step_table(table, planned))
    tried = [*bench.prepare(held_out, planned[study.held_out :], [tag])] if choices else []
    trials, places = list[EditTrial](), dict[str, EditPlace]()
    for method, candidates in choices.items():
        of_method = [bench.try_place(place, tried) for place in candidates] if len(candidates) > 1 else []
        best = max(of_method, key=lambda trial: (trial.score, trial.margin), default=None)
        places[method] = candidates[0] if best is None else best.place
        trials += of_method
        log.info("%s: layer %d chosen on %d held-out facts", method, places[method].layer, len(tried))
    asked = [*bench.prepare(edits, not_edited(planned, study), table.languages)]
    for number, part in enumerate(asked):
        bench.answer(NO_EDIT, number, part)
    for method in study.methods:
        for group in edits_by_change(method, asked):
            bench.measure(method, group, places.get(method))
            log.info("%s: edit %d of %d measured", method, max(group) + 1, len(edits))
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
