"""Which facts are edited, and the texts of an edit: its prompts, its contexts and what follows from it."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerBase

from babelscope.corpus import prefix_of, tokenize_prompt
from babelscope.errors import LanguageError, MeasurementError
from babelscope.evaluation.continuations import split_continuations
from babelscope.languages import Language
from babelscope.probes.knowledge import Fact, FactTable
from babelscope.probes.knowledge.facts import OBJECT, SUBJECT

SEPARATOR = "\n"
"""Between a context and what comes after it."""


class FactEdit(NamedTuple):
    """A fact that gets another object, told in one language."""

    fact: Fact
    new: str
    """The entity that is the object afterwards."""
    language: Language

    def sentence(self, table: FactTable) -> str:
        """The edited fact as a text."""
        return fact_text(table, self.fact._replace(object=self.new), self.language)


class EditPrompt(NamedTuple):
    """A prompt with the new object after it, as tokens."""

    ids: tuple[int, ...]
    subject: int
    """Place of the subject's last token."""
    start: int
    """Place of the first token of what the edit makes likelier: the object's, and what the template has after it."""


class Consequence(NamedTuple):
    """What follows from a fact and from its edit by one more step, such as the capital of a person's country."""

    relation: str
    old: str
    new: str


def fact_text(table: FactTable, fact: Fact, language: Language) -> str:
    """A fact as a text in one language."""
    labels = (table.labels[entity][language] for entity in (fact.subject, fact.object))
    return table.text(fact.relation, language, *labels)


def check_edit(table: FactTable, edit: FactEdit) -> None:
    """Raise unless an edit can be told in its language: LanguageError for the language, MeasurementError for the rest.

    The new object must be one of the relation's, and its template must have the subject before the object: a model
    that reads from left to right knows nothing of a subject that comes later.
    """
    if edit.language not in table.languages:
        raise LanguageError(
            f"an edit in {edit.language} came; {table.name} has facts in {', '.join(table.languages)}; choose of these"
        )
    fact, tag = edit.fact, edit.language
    if fact not in table.facts or table.facts.index(fact) not in table.asked(tag):
        raise MeasurementError(
            f"an edit of {' '.join(fact)} came, which cannot be asked in {tag}; expected a fact of {table.name} with a "
            "template and labels; choose another"
        )
    if edit.new == fact.object or edit.new not in table.candidates(fact, tag):
        raise MeasurementError(
            f"{edit.new!r} came as the new object of {' '.join(fact)}; expected another candidate in {tag}: "
            f"{', '.join(entity for entity in table.candidates(fact, tag) if entity != fact.object)}; choose of these"
        )
    if not has_subject_first(table, fact.relation, tag):
        raise MeasurementError(
            f"{table.templates[fact.relation][tag]!r} has the object before the subject; expected it after; write the "
            f"template of {fact.relation} in {tag} the other way round"
        )


def has_subject_first(table: FactTable, relation: str, tag: Language) -> bool:
    """Whether a relation's template has the subject before the object."""
    template = table.templates[relation][tag]
    return template.index(SUBJECT) < template.index(OBJECT)


def check_edits_agree(edits: Sequence[FactEdit]) -> None:
    """Raise MeasurementError unless edits that are made at once can hold at once.

    A fact may come in several languages, with one new object.
    """
    if not edits:
        raise MeasurementError("no edit came; expected at least one; name some")
    objects: dict[tuple[str, str], str] = {}
    for edit in edits:
        relation, subject, _ = edit.fact
        if objects.setdefault((relation, subject), edit.new) != edit.new:
            raise MeasurementError(
                f"edits of {relation} {subject} to {objects[relation, subject]} and to {edit.new} came; expected one "
                "object of a subject and relation; take one out"
            )
    if twice := [edit for edit in edits if edits.count(edit) > 1]:
        raise MeasurementError(
            f"the edit of {' '.join(twice[0].fact)} to {twice[0].new} in {twice[0].language} came twice; expected each "
            "once; take one out"
        )


def plan_edits(table: FactTable, language: Language, *, seed: int) -> list[FactEdit]:
    """An edit of each fact that can be edited, in random order; the new objects are drawn.

    Of a relation's objects only those count that are candidates in every language of the table. Facts that some
    language does not ask, with several right objects, or with the object first in this language are left out.
    """
    rng, edits = np.random.default_rng(seed), []
    questions = Counter(fact[:2] for fact in table.facts)
    asked = [{*table.asked(tag)} for tag in table.languages]
    for at in rng.permutation(len(table.facts)).tolist():
        fact = table.facts[at]
        if questions[fact[:2]] > 1 or not all(at in places for places in asked):
            continue
        rivals = set.intersection(*({*table.candidates(fact, tag)} for tag in table.languages)) - {fact.object}
        if rivals and has_subject_first(table, fact.relation, language):
            edits.append(FactEdit(fact, str(rng.choice(sorted(rivals))), language))
    return edits


def edit_contexts(table: FactTable, edit: FactEdit, *, count: int, rng: np.random.Generator) -> list[str]:
    """True sentences of other subjects and objects in the edit's language, to put before its prompt.

    Of other relations first: one of the same relation is an example of how to answer.
    Raises MeasurementError where the table has too few.
    """
    taken = {*edit.fact[1:], edit.new}
    others = [table.facts[at] for at in table.asked(edit.language) if not taken & {*table.facts[at][1:]}]
    if len(others) < count:
        raise MeasurementError(
            f"{count} contexts came, and {table.name} has {len(others)} facts in {edit.language} that share nothing "
            f"with {' '.join(edit.fact)}; expected no more than there are; lower the number"
        )
    drawn = sorted(
        rng.permutation(len(others)).tolist(), key=lambda place: others[place].relation == edit.fact.relation
    )
    return [fact_text(table, others[place], edit.language) for place in drawn[:count]]


def edit_prompts(
    tokenizer: PreTrainedTokenizerBase, table: FactTable, edit: FactEdit, contexts: Sequence[str]
) -> list[EditPrompt]:
    """The edit's prompt after each context; "" stands for none.

    The subject's last token is the last one that the prompt has in common with the text that ends at the subject.
    Raises MeasurementError where the tokenizer joins all of the subject with what follows it, so that it has none.
    """
    prompts = []
    for context in contexts:
        begin = f"{context}{SEPARATOR}" if context else ""
        text = begin + edit.sentence(table)
        before = begin + without_object(table, edit)
        item = split_continuations(tokenize_prompt(tokenizer, before), [tokenize_prompt(tokenizer, text)])
        through = tokenize_prompt(tokenizer, begin + through_subject(table, edit))
        ids = (*item.prompt, *item.following[0])
        subject = min(common_length(through, ids), len(item.prompt)) - 1
        before_subject = begin + table.templates[edit.fact.relation][edit.language].partition(SUBJECT)[0].rstrip()
        ids_before = tokenize_prompt(tokenizer, before_subject) if before_subject else prefix_of(tokenizer)
        if subject < common_length(ids_before, ids):
            raise MeasurementError(
                f"{text!r}: the tokenizer joins the subject with what follows it; expected a token that ends with the "
                f"subject; put a space behind [X] in the template of {edit.fact.relation} in {edit.language}"
            )
        prompts.append(EditPrompt(ids, subject, len(item.prompt)))
    return prompts


def common_length(first: Sequence[int], second: Sequence[int]) -> int:
    """How many tokens two texts begin with in common."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((at for at, (left, right) in pairs if left != right), min(len(first), len(second)))


def without_object(table: FactTable, edit: FactEdit) -> str:
    """The edit's prompt, up to the object."""
    subject = table.labels[edit.fact.subject][edit.language]
    return table.text(edit.fact.relation, edit.language, subject, OBJECT).partition(OBJECT)[0].rstrip()


def through_subject(table: FactTable, edit: FactEdit) -> str:
    """The edit's prompt, up to the end of the subject."""
    before = table.templates[edit.fact.relation][edit.language].partition(SUBJECT)[0]
    return before + table.labels[edit.fact.subject][edit.language]


def consequence_of(table: FactTable, edit: FactEdit) -> Consequence | None:
    """A relation in which the edit's old and new object have one object each, and another one; None without such.

    Of several, the first of the table.
    """
    for relation in table.relations:
        by_subject = {
            subject: [fact.object for fact in table.facts if fact[:2] == (relation, subject)]
            for subject in (edit.fact.object, edit.new)
        }
        old, new = by_subject.values()
        if len(old) == len(new) == 1 and old != new:
            return Consequence(relation, old[0], new[0])
    return None


def two_step_template(table: FactTable, edit: FactEdit, relation: str, language: Language) -> str | None:
    """A text that asks a relation of the object of another one: `Person: [X]. Capital: [Y]`.

    The words up to the subject of the first template, and those after the subject of the second. None where one of
    them has the object first, or the language has no such template.
    """
    templates = [table.templates[name].get(language) for name in (edit.fact.relation, relation)]
    if not all(text and text.index(SUBJECT) < text.index(OBJECT) for text in templates):
        return None
    first, second = (str(text) for text in templates)
    return first.partition(SUBJECT)[0] + SUBJECT + second.partition(SUBJECT)[2]
