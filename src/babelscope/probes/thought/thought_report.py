"""The same questions in several languages: all that is measured, as evidence, answers and figures in a folder."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from babelscope.artifacts import SteeringRecipe
from babelscope.controls import write_evidence
from babelscope.figures import SAME_ANSWERS_CAPTION, FigureCaption, edit_map, same_answers_map, write_figure
from babelscope.files.strict_json import nan_as_null
from babelscope.files.writing import new_folder, write_text
from babelscope.languages import Language
from babelscope.models.plain import CausalModel
from babelscope.probes.probe_evidence import SiteEvidence
from babelscope.probes.thought.answer_table import (
    AnswerTable,
    SelfConsistency,
    answer_rows,
    self_consistency,
    self_consistency_row,
    vote_of_languages,
)
from babelscope.probes.thought.forced_thought import PLAIN, ThoughtCondition, steering_conditions
from babelscope.probes.thought.forcing_cost import ForcedCost, cost_rows, forced_costs
from babelscope.probes.thought.language_of_steps import (
    StepShare,
    judged_languages,
    step_languages,
    step_rows,
    step_shares,
)
from babelscope.probes.thought.parallel_questions import QuestionTable
from babelscope.probes.thought.thought_plan import ThoughtPlan
from babelscope.probes.thought.written_answers import ReadAnswer, chosen_options, rank_options, write_answers
from babelscope.steering.checking import check_recipe
from babelscope.steering.sweeps import Decoding, overridden_settings

RESULT = "consistency.json"
FORCED_CAPTION = FigureCaption(
    "Right answers, by what the model is made to reason in",
    "Share of right answers: a row for the model as it is and for each way to force a language, below it its control; "
    "a column per language of the question.",
)


@dataclass(frozen=True, eq=False, kw_only=True)
class ThoughtReport:
    """What was measured; of choices there are no conditions and no steps."""

    plan: ThoughtPlan
    table: QuestionTable
    conditions: tuple[ThoughtCondition, ...]
    """The first is the model as it is."""
    answers: tuple[ReadAnswer, ...]
    drawn_answers: tuple[tuple[ReadAnswer, ...], ...] = ()
    """By draw: answers drawn in the language that others are compared with, in the order of the questions."""
    orders: Mapping[tuple[Language, str], tuple[str, ...]] = field(default_factory=dict)
    """Of choices: the options, the likeliest first."""
    overridden: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the checkpoint that its answers were not drawn by."""

    @cached_property
    def by_place(self) -> dict[tuple[str, Language, str], ReadAnswer]:
        """Answers by condition, language and question."""
        return {(answer.condition, answer.language, answer.id): answer for answer in self.answers}

    @cached_property
    def question_steps(self) -> dict[Language, list[list[Language | None]]]:
        """Languages of the questions' own sentences, by language that can be judged."""
        return {
            tag: [step_languages(self.table.questions[tag, name].text, tag) for name in self.table.ids]
            for tag in judged_languages(self.table.languages)
        }

    @cached_property
    def answer_evidence(self) -> list[SiteEvidence]:
        """Rows of the answers of the model as it is."""
        plan = self.plan
        return answer_rows(self.answer_table(), against=self.against, draws=plan.draws, seed=plan.seed)

    @property
    def against(self) -> Language:
        """The language that others are compared with."""
        return Language.parse(self.plan.against)

    def answer_table(self, condition: str = PLAIN) -> AnswerTable:
        """The answers of one condition."""
        tags, ids = self.table.languages, self.table.ids
        orders = tuple(tuple(self.orders[tag, name] for name in ids) for tag in tags) if self.orders else ()
        return AnswerTable(
            languages=tags,
            ids=ids,
            gold=tuple(map(self.table.answer, ids)),
            answers=tuple(tuple(self.by_place[condition, tag, name].answer for name in ids) for tag in tags),
            orders=orders,
        )

    @cached_property
    def self_consistency(self) -> SelfConsistency | None:
        """The drawn answers' vote beside that of the languages; None where none were drawn."""
        if not self.drawn_answers:
            return None
        rows, plan = [[answer.answer for answer in row] for row in self.drawn_answers], self.plan
        return self_consistency(self.answer_table(), rows, against=self.against, draws=plan.draws, seed=plan.seed)

    def shares(self, condition: str = PLAIN) -> dict[Language, list[StepShare]]:
        """Languages of the steps of one condition's answers, by language of the question that can be judged."""
        if self.table.kind == "choice":
            return {}
        return {
            tag: step_shares(
                [self.by_place[condition, tag, name].steps for name in self.table.ids],
                questions,
                asked_in=tag,
                against=self.against,
            )
            for tag, questions in self.question_steps.items()
        }

    def costs(self, tags: Sequence[Language] = ()) -> list[ForcedCost]:
        """What each condition that is no control changes, over some languages; none means all."""
        tags = tags or self.table.languages
        answers = {
            condition.name: [[self.by_place[condition.name, tag, name] for name in self.table.ids] for tag in tags]
            for condition in self.conditions
        }
        return forced_costs(self.conditions, answers, draws=self.plan.draws, seed=self.plan.seed)

    def rows(self) -> Iterator[SiteEvidence]:
        """Every row of evidence."""
        plan = self.plan
        yield from self.answer_evidence
        if (votes := self.self_consistency) is not None:
            yield self_consistency_row(votes, len(self.table.ids), plan.draws, plan.seed)
        for condition in self.conditions:
            name = "" if condition.name == PLAIN else condition.name
            yield from step_rows(self.shares(condition.name), condition=name)
        for tags in ((), *((tag,) for tag in self.table.languages)):
            yield from cost_rows(self.costs(tags), "".join(tags), draws=plan.draws, seed=plan.seed)

    def summary(self) -> dict[str, Any]:
        """What is printed."""
        table, plan, tags = self.answer_table(), self.plan, self.table.languages
        rows = {row.language: row for row in self.answer_evidence if row.claim == "right answers"}
        pairs = table.consistencies(draws=plan.draws, seed=plan.seed)
        vote = vote_of_languages(table, against=self.against, draws=plan.draws, seed=plan.seed)
        beside = {pair.second: pair for pair in pairs if pair.first == self.against}
        plain = {tag: [self.by_place[PLAIN, tag, name] for name in self.table.ids] for tag in tags}
        written = self.table.kind == "number"
        return nan_as_null({
            "kind": self.table.kind,
            "languages": list(tags),
            "against": self.against,
            "questions": len(self.table.ids),
            "right": {tag: rows[tag].estimate for tag in tags},
            "interval": {tag: [rows[tag].low, rows[tag].high] for tag in tags},
            "shuffled": {tag: rows[tag].null for tag in tags},
            "no_answer": {tag: float(np.mean([a.answer is None for a in plain[tag]])) for tag in tags},
            "agreement": {tag: [pair.agreement, pair.low, pair.high] for tag, pair in beside.items()},
            "agreement_shuffled": {tag: pair.null for tag, pair in beside.items()},
            "right_given_right": {tag: pair.right_given_right for tag, pair in beside.items()},
            "right_given_wrong": {tag: pair.right_given_wrong for tag, pair in beside.items()},
            "mean_agreement": float(np.mean([pair.agreement for pair in pairs])),
            "vote": {**vote._asdict(), "right": vote.right / vote.questions},
            "self_consistency": None if self.self_consistency is None else self.self_consistency._asdict(),
            "tokens": {tag: float(np.mean([a.tokens for a in plain[tag]])) for tag in tags} if written else {},
            "cut": {tag: float(np.mean([not a.ended for a in plain[tag]])) for tag in tags}
            if written and plan.chat else {},
            "steps": {
                tag: {part.written_in: [part.share, part.control] for part in parts}
                for tag, parts in self.shares().items()
            },
            "not_judged": [tag for tag in tags if tag not in judged_languages(tags)],
            "forced": [cost._asdict() for cost in self.costs()],
            "overridden_settings": dict(self.overridden),
        })  # fmt: skip

    def save(self, out: str | Path) -> None:
        """Write results.jsonl, answers.jsonl, consistency.json and figures into a new folder."""
        table, tags = self.answer_table(), self.table.languages
        agreement = np.eye(len(tags))
        for pair in table.consistencies(draws=1, seed=0):
            agreement[tags.index(pair.first), tags.index(pair.second)] = pair.agreement
        answers = [*self.answers, *sum(self.drawn_answers, ())]
        lines = [json.dumps({**answer._asdict(), "right": answer.right}, ensure_ascii=False) for answer in answers]
        with new_folder(out) as folder:
            write_evidence(self.rows(), folder / "results.jsonl")
            write_text(folder / "answers.jsonl", "".join(f"{line}\n" for line in lines))
            write_text(folder / RESULT, json.dumps(self.summary(), ensure_ascii=False, indent=1) + "\n")
            figure = same_answers_map(agreement=agreement, accuracy=table.right.mean(axis=1), languages=tags)
            write_figure(figure, folder / "agreement.html", SAME_ANSWERS_CAPTION)
            if len(self.conditions) > 1:
                names = [condition.name for condition in self.conditions]
                shares = np.array([self.answer_table(name).right.mean(axis=1) for name in names])
                figure = edit_map(shares=shares, methods=names, languages=tags, what="right answers")
                write_figure(figure, folder / "forced.html", FORCED_CAPTION)


def measure_thought(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    table: QuestionTable,
    *,
    plan: ThoughtPlan | None = None,
    recipe: SteeringRecipe | None = None,
    progress: bool = False,
) -> ThoughtReport:
    """The same questions in every language: right, alike, put to the vote, and what they are reasoned in.

    Questions for a number are answered in writing, by the likeliest token each time, and the last number counts
    (`last_number`) of an answer that was not cut off; of options the likeliest counts (`rank_options`). The plan's
    `think_in` begins answers in a language, a recipe steers them, each beside its control: another language's
    beginning, or random operations of the same size. The plan's `answer_draws` in one language are the control of the
    vote of languages.
    Raises LanguageError and MeasurementError where the questions do not allow what the plan asks for, ChatError for a
    model without a chat template, SteeringError for a recipe of another model.
    """
    plan = plan or ThoughtPlan()
    plan.check(table, steered=recipe is not None)
    words: dict[str, Any] = {"chat": plan.chat, "system": plan.system, "progress": progress}
    if table.kind == "choice":
        orders = rank_options(model, tokenizer, table, **words)
        return ThoughtReport(
            plan=plan,
            table=table,
            conditions=(ThoughtCondition(PLAIN),),
            answers=tuple(chosen_options(table, orders)),
            orders=orders,
        )
    conditions = [ThoughtCondition(PLAIN), *plan.begun(table)]
    if recipe is not None:
        check_recipe(recipe, model)
        texts = {tag: [table.questions[tag, name].text for name in table.ids] for tag in table.languages}
        conditions += steering_conditions(model, tokenizer, recipe, texts, seed=plan.seed)
    decoding = Decoding(new_tokens=plan.new_tokens, temperature=0.0, seed=plan.seed, batch_size=plan.batch_size)
    answers = write_answers(model, tokenizer, table, conditions, decoding=decoding, **words)
    drawn_answers = [
        write_answers(
            model,
            tokenizer,
            table.only([plan.against]),
            [ThoughtCondition(f"drawn {number + 1}")],
            decoding=replace(decoding, temperature=plan.temperature, seed=plan.seed + number),
            **words,
        )
        for number in range(plan.answer_draws)
    ]
    return ThoughtReport(
        plan=plan,
        table=table,
        conditions=tuple(conditions),
        answers=tuple(answers),
        drawn_answers=tuple(map(tuple, drawn_answers)),
        overridden=overridden_settings(model, decoding),
    )
