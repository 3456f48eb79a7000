"""What is asked before and after an edit, in every language, and how the answers have changed."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Literal, NamedTuple

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from babelscope.adaptation.editing.planned_edits import (
    SEPARATOR,
    FactEdit,
    consequence_of,
    two_step_template,
)
from babelscope.axes import Float64, Tensor
from babelscope.evaluation.continuations import continuation_log_probabilities
from babelscope.languages import Language
from babelscope.models import Layout
from babelscope.probes.knowledge import FactTable
from babelscope.probes.knowledge.typed_ranking import Question, entity_labels, question_tokens

Aspect = Literal["efficacy", "generality", "portability", "locality", "other edit"]
"""The edited fact; the same after other sentences; what follows from it; other facts of the relation, which should be
as before; and the same facts with the objects that edits of theirs would give them, which this edit should not."""
TWO_STEPS = " › "
"""Between the names of two relations that are asked in one question."""


class EditQuestion(NamedTuple):
    """One question about an edit; `old` and `new` are places among the options."""

    aspect: Aspect
    language: Language
    question: Question
    old: int
    new: int
    foreign: int = -1
    """The last option where it is the new object's word in the language of the edit, which is no candidate; else -1."""


class OptionScores(NamedTuple):
    """ln P of the options of one question, in nats."""

    sums: Float64[Tensor, " option"]
    means: Float64[Tensor, " option"]
    """Per token."""


class EditOutcome(NamedTuple):
    """How the answer to one question has changed; margins are mean ln P per token of the new less the old object."""

    method: str
    edit: int
    """Place among the edits that are scored."""
    language: Language
    aspect: Aspect
    before: float
    after: float
    says_new: bool
    """Whether the new object is the first of all candidates."""
    unchanged: bool
    """Whether the first of the candidates is the one from before."""
    divergence: float
    """KL(before ‖ after) of the answer, given that it is one of the candidates, in nats."""
    foreign_before: float
    """Mean ln P per token of the new object's word in the language of the edit, less that of the asked language; NaN
    where the words are one."""
    foreign_after: float


Value = Callable[[EditOutcome], float]
"""What a row of evidence is a mean of."""


def prefers_new(row: EditOutcome) -> float:
    """Whether the new object is likelier than the old one, per token."""
    return float(row.after > 0)


def moved(row: EditOutcome) -> float:
    """How far the margin of the new object moved, in nats per token."""
    return row.after - row.before


def kept_answer(row: EditOutcome) -> float:
    """Whether the answer is the one from before."""
    return float(row.unchanged)


def prefers_foreign(row: EditOutcome) -> float:
    """Whether the new object's word in the edit's language is likelier than that of the asked language."""
    return math.nan if math.isnan(row.foreign_after) else float(row.foreign_after > 0)


def two_step_table(table: FactTable, edits: Sequence[FactEdit]) -> FactTable:
    """The table with a template for each question of two steps that follows from an edit."""
    templates: dict[str, Mapping[Language, str]] = {**table.templates}
    for edit in edits:
        step = consequence_of(table, edit)
        if step is not None:
            texts = {tag: two_step_template(table, edit, step.relation, tag) for tag in table.languages}
            name = f"{edit.fact.relation}{TWO_STEPS}{step.relation}"
            templates[name] = {tag: text for tag, text in texts.items() if text}
    return replace(table, templates=templates)


def neighbours_of(
    table: FactTable, edit: FactEdit, edits: Sequence[FactEdit], *, count: int, rng: np.random.Generator
) -> list[FactEdit]:
    """Edits of other subjects of the relation, that would give them another object than this edit gives.

    This edit's object must be a wrong one of theirs, and a candidate in every language.
    """
    others = [
        other
        for other in edits
        if other.fact.relation == edit.fact.relation
        and other.fact != edit.fact
        and edit.new not in (other.new, other.fact.object)
        and all(edit.new in table.candidates(other.fact, tag) for tag in table.languages)
    ]
    return [others[place] for place in rng.permutation(len(others))[:count].tolist()]


def questions_about(
    table: FactTable,
    edit: FactEdit,
    neighbours: Sequence[FactEdit],
    *,
    contexts: Sequence[str] = (),
    languages: Sequence[Language] | None = None,
) -> list[EditQuestion]:
    """All that is asked about one edit; contexts: for generality, which is asked in the language of the edit.

    table: of `two_step_table`.
    """
    questions, step = list[EditQuestion](), consequence_of(table, edit)
    for tag in table.languages if languages is None else languages:
        questions.append(question_about(table, edit, "efficacy", tag))
        for neighbour in neighbours:
            questions.append(question_about(table, neighbour._replace(new=edit.new), "locality", tag))
            questions.append(question_about(table, neighbour, "other edit", tag))
        if step is not None and tag in table.templates[f"{edit.fact.relation}{TWO_STEPS}{step.relation}"]:
            entities = table.objects(step.relation, tag)
            if step.old in entities and step.new in entities:
                name = f"{edit.fact.relation}{TWO_STEPS}{step.relation}"
                asked = Question(name, table.labels[edit.fact.subject][tag], entity_labels(table, entities, tag))
                places = (entities.index(step.old), entities.index(step.new))
                questions.append(EditQuestion("portability", tag, asked, *places))
    for context in contexts:
        asked = question_about(table, edit, "generality", edit.language)
        questions.append(asked._replace(question=asked.question._replace(context=context + SEPARATOR)))
    return questions


def question_about(table: FactTable, edit: FactEdit, aspect: Aspect, tag: Language) -> EditQuestion:
    """The fact of an edit, asked in one language."""
    entities = table.candidates(edit.fact, tag)
    options, foreign = entity_labels(table, entities, tag), table.labels[edit.new][edit.language]
    has_foreign = aspect == "efficacy" and foreign not in options
    asked = Question(
        edit.fact.relation, table.labels[edit.fact.subject][tag], (*options, foreign) if has_foreign else options
    )
    places = (entities.index(edit.fact.object), entities.index(edit.new))
    return EditQuestion(aspect, tag, asked, *places, len(options) if has_foreign else -1)


def ask(
    layout: Layout,
    tokenizer: PreTrainedTokenizerBase,
    table: FactTable,
    questions: Sequence[EditQuestion],
    *,
    told: Mapping[Language, str] | None = None,
) -> list[OptionScores]:
    """ln P of every option of every question.

    told: by language, a text before its questions, such as the edited fact.
    """
    items, told = [], told or {}
    for asked in questions:
        begin = told[asked.language] + SEPARATOR if asked.language in told else ""
        question = asked.question._replace(context=begin + asked.question.context)
        items += question_tokens(tokenizer, table, asked.language, [question])
    # Questions that are the same word for word are asked once.
    distinct = {item: None for item in items}
    sums = dict(zip(distinct, continuation_log_probabilities(layout, [*distinct]), strict=True))
    return [OptionScores(sums[item], sums[item] / torch.tensor([len(ids) for ids in item.following])) for item in items]


def outcome_of(
    method: str, edit: int, question: EditQuestion, before: OptionScores, after: OptionScores
) -> EditOutcome:
    """How one answer has changed."""
    count = len(before.sums) - (question.foreign >= 0)
    first = [int(scores.means[:count].argmax()) for scores in (before, after)]
    ln_before, ln_after = (scores.sums[:count].log_softmax(dim=0) for scores in (before, after))

    def ahead(scores: OptionScores, place: int, of: int) -> float:
        return float(scores.means[place] - scores.means[of]) if place >= 0 else math.nan

    return EditOutcome(
        method=method,
        edit=edit,
        language=question.language,
        aspect=question.aspect,
        before=ahead(before, question.new, question.old),
        after=ahead(after, question.new, question.old),
        says_new=first[1] == question.new,
        unchanged=first[0] == first[1],
        divergence=float((ln_before.exp() * (ln_before - ln_after)).sum()),
        foreign_before=ahead(before, question.foreign, question.new),
        foreign_after=ahead(after, question.foreign, question.new),
    )
