"""Questions put to a model: greedy answers in writing, or the likeliest of some options."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from transformers import PreTrainedTokenizerBase

from babelscope.corpus import asked, rendered, tokenize_prompt
from babelscope.evaluation import known_languages
from babelscope.evaluation.continuations import Continuations, continuation_log_probabilities, split_continuations
from babelscope.languages import Language
from babelscope.languages.scripts import UNSPACED
from babelscope.models import layout_of
from babelscope.models.plain import CausalModel
from babelscope.probes.thought.extracted_answers import last_number
from babelscope.probes.thought.forced_thought import PLAIN, ThoughtCondition
from babelscope.probes.thought.language_of_steps import step_languages
from babelscope.probes.thought.parallel_questions import AskedQuestion, QuestionTable
from babelscope.progress import progress_bar
from babelscope.steering.sweeps import Answer, Decoding, Prompt, generate_answers


class ReadAnswer(NamedTuple):
    """One answer, and what was read from it."""

    condition: str
    language: Language
    """Of the question."""
    id: str
    text: str
    """What the model wrote; of a choice, the option."""
    answer: str | None
    """Its last number, or the place of the option; None without a number, and where the answer was cut off."""
    gold: str
    tokens: int
    """That the model wrote; 0 for a choice."""
    ended: bool
    """Whether it ended within the tokens that it had: by itself, or without chat by a blank line."""
    steps: tuple[Language | None, ...]
    """Language of each step that is long enough to be told; none where the question's language cannot be judged."""

    @property
    def right(self) -> bool:
        """Whether it is the right one."""
        return self.answer == self.gold


def question_prompt(
    question: AskedQuestion, name: str, tag: Language, *, begun: str, chat: bool, system: str | None
) -> Prompt:
    """A question as it is put: as the user's message, or as text with a line end behind it."""
    if chat:
        return Prompt.chat(name, tag, question.text, system=system)._replace(begun=begun)
    return Prompt(name, tag, f"{question.text}\n{begun}")


def write_answers(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    table: QuestionTable,
    conditions: Sequence[ThoughtCondition],
    *,
    chat: bool,
    system: str | None,
    decoding: Decoding,
    progress: bool = False,
) -> list[ReadAnswer]:
    """Every question answered in every language under every condition; prompts of like length go together.

    Without chat a model has no turn to end: what counts is its text up to the first blank line. An answer that was cut
    off before either is none: its last number is of a step, or of a list.
    """
    answers = {}
    with progress_bar(
        total=len(conditions) * len(table.languages) * len(table.ids), unit="answers", desc="questions", shown=progress
    ) as bar:
        for condition in conditions:
            prompts = [
                question_prompt(
                    table.questions[tag, name],
                    name,
                    tag,
                    begun=condition.begun.get(tag, ""),
                    chat=chat,
                    system=system,
                )
                for tag in table.languages
                for name in table.ids
            ]
            prompts.sort(key=lambda prompt: len(prompt.text))
            steerer = None if condition.recipe is None else lambda *_, recipe=condition.recipe: recipe
            for start in range(0, len(prompts), decoding.batch_size):
                batch = prompts[start : start + decoding.batch_size]
                requests = [(prompt, condition.target(prompt.source)) for prompt in batch]
                for answer in generate_answers(model, tokenizer, requests, steerer, decoding=decoding):
                    entry = read_answer(condition.name, table, answer, chat=chat)
                    answers[condition.name, entry.language, entry.id] = entry
                bar.update(len(batch))
    return [answers[part.name, tag, name] for part in conditions for tag in table.languages for name in table.ids]


def read_answer(condition: str, table: QuestionTable, answer: Answer, *, chat: bool) -> ReadAnswer:
    """What is read from one answer.

    It is whole where the model ended it, or, without chat, where a blank line follows; a cut one is no answer.
    """
    tag, name = answer.prompt.source, answer.prompt.id
    text, blank, _ = (answer.text, "", "") if chat else answer.text.strip().partition("\n\n")
    complete = answer.ended or bool(blank)
    steps = tuple(step_languages(text, tag)) if tag in known_languages() else ()
    # Of a cut answer the last number is of a step, or of a list.
    value, gold = last_number(text) if complete else None, table.answer(name)
    return ReadAnswer(condition, tag, name, text, value, gold, len(answer.ids), complete, steps)


def rank_options(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    table: QuestionTable,
    *,
    chat: bool,
    system: str | None,
    progress: bool = False,
) -> dict[tuple[Language, str], tuple[str, ...]]:
    """The options of every question, as places from 1, the likeliest first; equal ones in their order.

    An option's score is the mean ln P of its tokens, those behind the question's own (`split_continuations`).
    """
    layout, orders = layout_of(model), {}
    with progress_bar(
        total=len(table.languages) * len(table.ids), unit="questions", desc="options", shown=progress
    ) as bar:
        for tag in table.languages:
            items = [
                option_ids(tokenizer, table.questions[tag, name], tag, chat=chat, system=system) for name in table.ids
            ]
            scores = continuation_log_probabilities(layout, items)
            for name, item, row in zip(table.ids, items, scores, strict=True):
                means = row / torch.tensor([len(ids) for ids in item.following])
                order = means.argsort(descending=True, stable=True).tolist()
                orders[tag, name] = tuple(str(place + 1) for place in order)
            bar.update(len(items))
    return orders


def chosen_options(
    table: QuestionTable, orders: Mapping[tuple[Language, str], tuple[str, ...]]
) -> Iterator[ReadAnswer]:
    """The likeliest option of every question as its answer."""
    for (tag, name), order in orders.items():
        text = table.questions[tag, name].options[int(order[0]) - 1]
        yield ReadAnswer(PLAIN, tag, name, text, order[0], table.answer(name), 0, True, ())


def option_ids(
    tokenizer: PreTrainedTokenizerBase, question: AskedQuestion, tag: Language, *, chat: bool, system: str | None
) -> Continuations:
    """The tokens of a question and of each option behind it."""
    if chat:
        turns = asked(question.text, system=system)
        prompt, *wholes = (
            rendered(tokenizer, turns, reply=True, begun=option).ids for option in ("", *question.options)
        )
        return split_continuations(prompt, wholes)
    space = "" if tag.script in UNSPACED else " "
    wholes = [tokenize_prompt(tokenizer, f"{question.text}{space}{option}") for option in question.options]
    return split_continuations(tokenize_prompt(tokenizer, question.text), wholes)
