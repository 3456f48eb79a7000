"""Which facts a model knows in which language: the right object ranked among all objects of its relation."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from babelscope.axes import Bool, Float64, Int64, Tensor
from babelscope.controls import Interval, rank_p, wilson_interval
from babelscope.corpus import tokenize_prompt, tokenize_prompts
from babelscope.errors import MeasurementError
from babelscope.evaluation.continuations import Continuations, continuation_log_probabilities, split_continuations
from babelscope.languages import Language, language_index
from babelscope.models import Layout, layout_of
from babelscope.models.plain import CausalModel
from babelscope.probes.knowledge.facts import OBJECT, FactTable
from babelscope.probes.probe_evidence import SiteEvidence
from babelscope.progress import with_progress

RankingRule = Literal["corrected", "mean"]
BLANK = "___"
"""What stands in the subject's place where the prior of an object is scored."""
NOT_ASKED = -1


class ObjectScores(NamedTuple):
    """Scores of the candidates of one fact in one language, in nats per token."""

    candidates: tuple[str, ...]
    mean: Float64[Tensor, " candidate"]
    """Mean ln P of the tokens behind the question: the object's, and what the template has after it."""
    corrected: Float64[Tensor, " candidate"]
    """Less the same where the subject is blank: a frequent object gains nothing from being frequent."""


class Precision(NamedTuple):
    """P@1 of one language, over all relations or in one."""

    language: Language
    relation: str
    """"" for all."""
    facts: int
    share: float
    interval: Interval
    """Wilson's, 95 %, over facts."""
    chance: float
    """Mean of 1/candidates."""
    null: float
    """Mean P@1 where each fact gets the answer to another subject of its relation."""
    p: float
    """Rank of the share among those of shuffled subjects."""


@dataclass(frozen=True, eq=False)
class Knowledge:
    """The candidates' scores of every fact in every language, and the answers that follow from them."""

    table: FactTable
    scores: Mapping[Language, Mapping[int, ObjectScores]]
    """By language and place of the fact in the table."""
    ranking: RankingRule
    draws: int
    seed: int

    @property
    def languages(self) -> tuple[Language, ...]:
        """In the order of the table."""
        return self.table.languages

    def index(self, language: str) -> int:
        """Place of a language; raises LanguageError if absent."""
        return language_index(language, self.languages, "no fact was asked in {tag}")

    def order(self, language: Language, fact: int) -> list[str]:
        """The candidates of a fact, the likeliest first; equal ones in the order of the table."""
        scores = self.scores[language][fact]
        values = scores.corrected if self.ranking == "corrected" else scores.mean
        return [scores.candidates[at] for at in values.argsort(descending=True, stable=True).tolist()]

    @cached_property
    def objects(self) -> tuple[str, ...]:
        """Every object of the table once, which `answers` numbers."""
        return tuple(dict.fromkeys(fact.object for fact in self.table.facts))

    @cached_property
    def gold(self) -> Int64[Tensor, " fact"]:
        """Number of each fact's object."""
        place = {entity: number for number, entity in enumerate(self.objects)}
        return torch.tensor([place[fact.object] for fact in self.table.facts])

    @cached_property
    def answers(self) -> Int64[Tensor, "language fact"]:
        """Number of the likeliest object; -1 where a fact is not asked."""
        place = {entity: number for number, entity in enumerate(self.objects)}
        answers = torch.full((len(self.languages), len(self.table.facts)), NOT_ASKED)
        for row, tag in enumerate(self.languages):
            for fact in self.scores[tag]:
                answers[row, fact] = place[self.order(tag, fact)[0]]
        return answers

    @property
    def asked(self) -> Bool[Tensor, "language fact"]:
        """Whether a fact is asked in a language."""
        return self.answers != NOT_ASKED

    @property
    def right(self) -> Bool[Tensor, "language fact"]:
        """Whether the likeliest object is the fact's own."""
        return self.answers == self.gold

    def precision(self, language: str, relation: str = "") -> Precision:
        """P@1 of one language with its interval, chance, and the shuffled-subject control.

        The control gives each fact the answer to another fact's question, drawn among those of its relation: what
        remains is what the relation alone says, such as that most answers are in Europe.
        Raises MeasurementError where nothing is asked.
        """
        row = self.index(language)
        tag, of_fact = self.languages[row], [fact.relation for fact in self.table.facts]
        places = [at for at in self.scores[tag] if relation in ("", of_fact[at])]
        if not places:
            raise MeasurementError(f"no fact of {relation or 'any relation'} is asked in {tag}; choose another")
        answers, gold = self.answers[row].numpy(), self.gold.numpy()
        hits = int((answers[places] == gold[places]).sum())
        rng, null = np.random.default_rng(self.seed), np.zeros(self.draws)
        for name in dict.fromkeys(of_fact[at] for at in places):
            part = np.array([at for at in places if of_fact[at] == name])
            shuffled = rng.permuted(np.tile(answers[part], (self.draws, 1)), axis=1)
            null += (shuffled == gold[part]).sum(axis=1) / len(places)
        return Precision(
            tag,
            relation,
            len(places),
            hits / len(places),
            wilson_interval(hits, len(places)),
            float(np.mean([1 / len(self.scores[tag][at].candidates) for at in places])),
            float(null.mean()),
            rank_p(hits / len(places), null),
        )

    def macro_precision(self, language: str) -> float:
        """Mean over relations of P@1, as mLAMA reports it."""
        tag = self.languages[self.index(language)]
        relations = dict.fromkeys(self.table.facts[at].relation for at in self.scores[tag])
        return float(np.mean([self.precision(tag, relation).share for relation in relations]))

    def mean_rank(self, language: str) -> float:
        """Mean over facts of (rank of the right object - 1) / (candidates - 1): 0 is first, 0.5 chance."""
        tag = self.languages[self.index(language)]
        places = []
        for fact in self.scores[tag]:
            order = self.order(tag, fact)
            places.append(order.index(self.table.facts[fact].object) / (len(order) - 1))
        return float(np.mean(places)) if places else math.nan

    def rows(self) -> list[SiteEvidence]:
        """One row per language, over all relations and by relation."""
        cells = [
            self.precision(tag, relation)
            for tag in self.languages
            for relation in ("", *dict.fromkeys(self.table.facts[at].relation for at in self.scores[tag]))
        ]
        return [
            SiteEvidence(
                claim=f"P@1, {cell.relation or 'all relations'}",
                language=cell.language,
                control="answers to other subjects of the relation",
                n=cell.facts,
                estimate=cell.share,
                low=cell.interval.low,
                high=cell.interval.high,
                p=cell.p,
                draws=self.draws,
                seed=self.seed,
                note=f"chance {cell.chance:.3f}; ranked by {self.ranking} log-probability per token",
                null=cell.null,
            )
            for cell in cells
        ]


def rank_objects(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    table: FactTable,
    *,
    ranking: RankingRule = "corrected",
    draws: int = 999,
    seed: int = 0,
    progress: bool = False,
) -> Knowledge:
    """Typed ranking: every object of a fact's relation in the fact's place, scored and ranked, in every language.

    mean: (1/n) Σ_j ln P(t_j | prompt, t_<j) over the n tokens behind the question's own (`split_continuations`): the
    object's, and what the template has after it; a token that all begin with, such as a space, is one of them.
    corrected: less the same with the subject blank, mean(object | subject) - mean(object | ___).
    The right object must be first; of equal scores the first in the table is. A prompt passes the model once for all
    candidates. Raises CorpusError where candidates of a template have no first token in common, MeasurementError where
    no fact can be asked in a language.
    Source: Kassner et al. 2021, arXiv:2102.00894, for masked models; here for models that predict the next token, whose
    templates best end in the object.
    """
    check_every_language_is_asked(table)
    layout = layout_of(model)
    tags = with_progress(table.languages, unit="language", desc="asking facts", shown=progress)
    scores = {tag: language_scores(layout, tokenizer, table, tag) for tag in tags}
    return Knowledge(table, scores, ranking, draws, seed)


def check_every_language_is_asked(table: FactTable) -> None:
    """Raise MeasurementError where no fact can be asked in a language."""
    if empty := [tag for tag in table.languages if not table.asked(tag)]:
        raise MeasurementError(
            f"{table.name}: no fact can be asked in {', '.join(empty)}; expected a template and labels; add them, or "
            "leave the language out"
        )


def language_scores(
    layout: Layout, tokenizer: PreTrainedTokenizerBase, table: FactTable, tag: Language
) -> dict[int, ObjectScores]:
    """Scores of each fact's candidates in one language, by the place of the fact."""
    places = table.asked(tag)
    relations = [*dict.fromkeys(table.facts[at].relation for at in places)]
    objects = {relation: table.objects(relation, tag) for relation in relations}
    candidates = [table.candidates(table.facts[at], tag) for at in places]
    blank = [Question(relation, BLANK, entity_labels(table, objects[relation], tag)) for relation in relations]
    subjects = [(table.facts[at].relation, table.labels[table.facts[at].subject][tag]) for at in places]
    questions = [
        Question(relation, subject, entity_labels(table, entities, tag))
        for (relation, subject), entities in zip(subjects, candidates, strict=True)
    ]
    means = question_means(layout, tokenizer, table, tag, [*blank, *questions])
    priors = {
        relation: dict(zip(objects[relation], mean.tolist(), strict=True))
        for relation, mean in zip(relations, means, strict=False)
    }
    scores = {}
    for at, entities, mean in zip(places, candidates, means[len(relations) :], strict=True):
        prior = [priors[table.facts[at].relation][entity] for entity in entities]
        scores[at] = ObjectScores(entities, mean, mean - torch.tensor(prior, dtype=torch.float64))
    return scores


class Question(NamedTuple):
    """A relation of a subject, and the words that may answer it."""

    relation: str
    subject: str
    """Its label."""
    options: tuple[str, ...]
    """Labels of objects, of any language."""
    context: str = ""
    """What stands before it."""


def entity_labels(table: FactTable, entities: Sequence[str], tag: Language) -> tuple[str, ...]:
    """What entities are called in a language."""
    return tuple(table.labels[entity][tag] for entity in entities)


def question_means(
    layout: Layout, tokenizer: PreTrainedTokenizerBase, table: FactTable, tag: Language, questions: Sequence[Question]
) -> list[Tensor]:
    """Mean ln P per token of each option of each question, which is asked by the template of one language."""
    items = question_tokens(tokenizer, table, tag, questions)
    sums = continuation_log_probabilities(layout, items)
    return [
        values / torch.tensor([len(ids) for ids in item.following]) for values, item in zip(sums, items, strict=True)
    ]


def question_tokens(
    tokenizer: PreTrainedTokenizerBase, table: FactTable, tag: Language, questions: Sequence[Question]
) -> list[Continuations]:
    """Tokens of each question, and of each option after it."""
    items = []
    for relation, subject, options, context in questions:
        texts = [context + table.text(relation, tag, subject, option) for option in options]
        # Without the space before the object, which tokenizers join with the object.
        before = context + table.text(relation, tag, subject, OBJECT).partition(OBJECT)[0].rstrip()
        items.append(split_continuations(tokenize_prompt(tokenizer, before), tokenize_prompts(tokenizer, texts)))
    return items
