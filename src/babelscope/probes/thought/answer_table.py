"""Answers to the same questions in several languages: right or wrong, alike or not, and put to the vote."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from babelscope.axes import Bool, Int64
from babelscope.controls import percentile_interval, rank_p, wilson_interval
from babelscope.controls.bootstrap_draws import mean_interval
from babelscope.errors import MeasurementError
from babelscope.languages import Language, language_index
from babelscope.probes.knowledge.consistency import RESAMPLES, Consistency, compare_answers_of, consistency_rows
from babelscope.probes.priming.primed_structures import sign_flip_p
from babelscope.probes.probe_evidence import SiteEvidence

SPLITS = 200
"""Half-splits on which the best single language is chosen and tested."""


class Vote(NamedTuple):
    """Voting over languages beside one language alone."""

    against: Language
    questions: int
    right: int
    """By the vote."""
    alone: float
    """Share that is right in `against`."""
    gain: float
    """Vote less alone, over questions."""
    low: float
    high: float
    p: float
    """Two-sided, by random signs of the questions' differences."""
    best_single: float
    """The language that is best on one half of the questions, on the other half; mean over half-splits."""
    gain_over_best: float
    best_low: float
    """Ends of the middle 95 % over splits of the same questions: a range, no confidence interval."""
    best_high: float
    any_language: float
    """Right in one language or more: what no choice can pass."""


class SelfConsistency(NamedTuple):
    """Several answers drawn in one language and put to the vote, beside the vote of as many languages or of others."""

    language: Language
    answers: int
    """Drawn for each question."""
    right: float
    """Share that is right by their vote."""
    single: float
    """Share of the drawn answers that are right."""
    gain: float
    """The vote of languages less this one, over questions."""
    low: float
    high: float
    p: float
    """Two-sided, by random signs of the questions' differences."""


@dataclass(frozen=True, eq=False, kw_only=True)
class AnswerTable:
    """What was answered to each question in each language; None where no answer could be read off."""

    languages: tuple[Language, ...]
    ids: tuple[str, ...]
    gold: tuple[str, ...]
    answers: tuple[tuple[str | None, ...], ...]
    """By language and question."""
    orders: tuple[tuple[tuple[str, ...], ...], ...] = ()
    """Of choices: the options by language and question, the likeliest first."""

    def __post_init__(self) -> None:
        n = len(self.ids)
        if (
            len(self.gold) != n
            or len(self.answers) != len(self.languages)
            or any(len(row) != n for row in self.answers)
        ):
            raise MeasurementError(
                f"{len(self.gold)} right answers and rows of {', '.join(str(len(row)) for row in self.answers)} came "
                f"for {n} questions in {len(self.languages)} languages; expected one each; correct them"
            )

    def index(self, language: str) -> int:
        """Place of a language; raises LanguageError if absent."""
        return language_index(language, self.languages, "nothing was asked in {tag}")

    @cached_property
    def codes(self) -> Int64[np.ndarray, "language question"]:
        """Answers as numbers; where there is none, −1 less the language's place: no answer is like no other one."""
        place = {answer: number for number, answer in enumerate(dict.fromkeys(a for row in self.answers for a in row))}
        return np.array(
            [[-1 - row if a is None else place[a] for a in line] for row, line in enumerate(self.answers)], np.int64
        )

    @cached_property
    def right(self) -> Bool[np.ndarray, "language question"]:
        """Whether each answer is the right one."""
        return np.array([[a == b for a, b in zip(line, self.gold, strict=True)] for line in self.answers], bool)

    def consistency(self, first: str, second: str, *, draws: int, seed: int) -> Consistency:
        """How alike two languages' answers are; the null shuffles the second's answers among the questions."""
        rows = [self.index(tag) for tag in (first, second)]
        return compare_answers_of(
            (self.languages[rows[0]], self.languages[rows[1]]),
            self.codes[rows],
            self.right[rows],
            groups=[""] * len(self.ids),
            orders=[self.orders[row] for row in rows] if self.orders else ((), ()),
            draws=draws,
            seed=seed,
        )

    def consistencies(self, *, draws: int, seed: int) -> list[Consistency]:
        """Every ordered pair of languages."""
        tags = self.languages
        return [self.consistency(a, b, draws=draws, seed=seed) for a in tags for b in tags if a != b]


def majority_answers(table: AnswerTable, *, first: str) -> list[str | None]:
    """The answer that most languages give to each question; None where none gives one.

    Of answers with as many votes, that of the language `first` counts where it is among them, else that of the
    earliest language of the table.
    """
    order = sorted(range(len(table.languages)), key=lambda row: (row != table.index(first), row))
    return most_given([table.answers[row] for row in order])


def most_given(answers: Sequence[Sequence[str | None]]) -> list[str | None]:
    """The most frequent answer of the rows to each question, of equal counts that of the earliest; None of none."""
    votes: list[str | None] = []
    for column in zip(*answers, strict=True):
        counts = Counter(answer for answer in column if answer is not None)
        # `most_common` keeps the order of first occurrence among equals.
        votes.append(counts.most_common(1)[0][0] if counts else None)
    return votes


def self_consistency(
    table: AnswerTable, answers: Sequence[Sequence[str | None]], *, against: str, draws: int = 999, seed: int = 0
) -> SelfConsistency:
    """Answers drawn to each question in `against`, put to the vote: what a vote of as many languages has to beat.

    answers: by draw and question. A vote of languages is right more often than one answer even where every answer is a
    guess of the same kind; that of several answers in one language is its control.
    Source: Wang et al. 2022, arXiv:2203.11171.
    """
    tag, rng = table.languages[table.index(against)], np.random.default_rng(seed)
    own_votes, votes_of_all = (
        np.array([a == b for a, b in zip(votes, table.gold, strict=True)], float)
        for votes in (most_given(answers), majority_answers(table, first=tag))
    )
    right = [a == b for row in answers for a, b in zip(row, table.gold, strict=True)]
    gains = votes_of_all - own_votes
    low, high = mean_interval(gains, RESAMPLES, rng)
    return SelfConsistency(
        tag,
        len(answers),
        float(own_votes.mean()),
        float(np.mean(right)),
        float(gains.mean()),
        low,
        high,
        sign_flip_p(gains, draws, rng),
    )


def self_consistency_row(votes: SelfConsistency, questions: int, draws: int, seed: int) -> SiteEvidence:
    """The vote of languages less that of several answers in one."""
    return SiteEvidence(
        claim="right by a vote of all languages less that of answers drawn in one",
        language="",
        control="no difference",
        against=votes.language,
        n=questions,
        estimate=votes.gain,
        low=votes.low,
        high=votes.high,
        p=votes.p,
        null=0.0,
        draws=draws,
        seed=seed,
        note=f"{votes.answers} answers drawn to each question: right by their vote {votes.right:.3f}, each alone "
        f"{votes.single:.3f}",
    )


def vote_of_languages(table: AnswerTable, *, against: str, draws: int = 999, seed: int = 0) -> Vote:
    """The vote of all languages against one alone, and against the best one, which is chosen on other questions."""
    tag, n = table.languages[table.index(against)], len(table.ids)
    vote = np.array([a == b for a, b in zip(majority_answers(table, first=tag), table.gold, strict=True)], float)
    right, rng = table.right.astype(float), np.random.default_rng(seed)
    alone = right[table.index(tag)]
    low, high = mean_interval(vote - alone, RESAMPLES, rng)
    singles, gains = np.full(SPLITS, np.nan), np.full(SPLITS, np.nan)
    for split in range(SPLITS if n > 1 else 0):
        order = rng.permutation(n)
        train, test = order[: n // 2], order[n // 2 :]
        singles[split] = right[int(right[:, train].mean(axis=1).argmax()), test].mean()
        gains[split] = vote[test].mean() - singles[split]
    return Vote(
        tag,
        n,
        int(vote.sum()),
        float(alone.mean()),
        float((vote - alone).mean()),
        low,
        high,
        sign_flip_p(vote - alone, draws, rng),
        float(singles.mean()),
        float(gains.mean()),
        *percentile_interval(gains),
        float(right.max(axis=0).mean()),
    )


def answer_rows(table: AnswerTable, *, against: str, draws: int, seed: int) -> list[SiteEvidence]:
    """Accuracy by language, agreement of every pair, and the vote.

    The control of accuracy gives each question the answer to another one.
    """
    rng, rows = np.random.default_rng(seed), []
    codes = {answer: number for number, answer in enumerate(dict.fromkeys((*table.gold, *sum(table.answers, ()))))}
    gold = np.array([codes[answer] for answer in table.gold])
    for tag, line, right in zip(table.languages, table.answers, table.right, strict=True):
        answers = np.array([-1 if answer is None else codes[answer] for answer in line])
        null = (rng.permuted(np.tile(answers, (draws, 1)), axis=1) == gold).mean(axis=1)
        low, high = wilson_interval(int(right.sum()), len(right))
        rows.append(
            SiteEvidence(
                claim="right answers",
                language=tag,
                control="answers shuffled among the questions",
                n=len(right),
                estimate=float(right.mean()),
                low=low,
                high=high,
                p=rank_p(float(right.mean()), null),
                null=float(null.mean()),
                draws=draws,
                seed=seed,
                note=f"no answer to {sum(answer is None for answer in line)}",
            )
        )
    pairs = table.consistencies(draws=draws, seed=seed)
    rows += consistency_rows(pairs, draws=draws, seed=seed, control="answers shuffled among the questions")
    return [*rows, *vote_rows(vote_of_languages(table, against=against, draws=draws, seed=seed), draws, seed)]


def vote_rows(vote: Vote, draws: int, seed: int) -> Sequence[SiteEvidence]:
    """The vote against one language, and against the best one."""
    share, interval = vote.right / vote.questions, wilson_interval(vote.right, vote.questions)
    common = {"language": "", "n": vote.questions, "draws": draws, "seed": seed}
    return (
        SiteEvidence(
            claim="right by a vote of all languages",
            control=f"{vote.against} alone",
            against=vote.against,
            estimate=share,
            low=interval.low,
            high=interval.high,
            null=vote.alone,
            note=f"right in any language {vote.any_language:.3f}",
            **common,
        ),
        SiteEvidence(
            claim=f"right by the vote less {vote.against} alone",
            control="no difference",
            against=vote.against,
            estimate=vote.gain,
            low=vote.low,
            high=vote.high,
            p=vote.p,
            null=0.0,
            **common,
        ),
        SiteEvidence(
            claim="right by the vote less the best single language",
            control="no difference",
            estimate=vote.gain_over_best,
            low=vote.best_low,
            high=vote.best_high,
            null=0.0,
            note=f"chosen on one half of the questions, tested on the other ({vote.best_single:.3f}); range over "
            f"{SPLITS} half-splits, no confidence interval",
            **common,
        ),
    )
