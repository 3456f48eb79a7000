"""In which language each step of a written answer is."""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import regex

from babelscope.controls.intervals import Interval, ratio_interval
from babelscope.evaluation import judge_answers, known_languages
from babelscope.evaluation.judged_answers import line_languages
from babelscope.evaluation.labelled_words import accepted
from babelscope.languages import Language
from babelscope.probes.probe_evidence import SiteEvidence

COMMAND = re.compile(r"\\[A-Za-z]+")
"""Of LaTeX: its letters are of no language."""
SENTENCE = regex.compile(r"(?<=[.!?;]['\"»”)*]*)\s+|(?<=[。！？；।])")
"""Where one sentence ends and the next begins; a point inside a number has no space behind it."""


class StepShare(NamedTuple):
    """Share of the steps of a language's answers that are in one language, or in others."""

    asked_in: Language
    written_in: str
    """A tag, or "other" for what is neither the question's language nor the one that is compared with."""
    answers: int
    """With a step that could be judged."""
    steps: int
    share: float
    interval: Interval
    """95 %, over answers."""
    control: float
    """The same of the questions' own sentences, judged in the same way: all of them are in the question's language."""


def written_steps(text: str) -> list[str]:
    """The steps of an answer: its lines, cut behind each sentence; LaTeX's commands are taken out."""
    lines = COMMAND.sub(" ", text).splitlines()
    return [step.strip() for line in lines for step in SENTENCE.split(line) if step and step.strip()]


def step_languages(text: str, asked_in: str) -> list[Language | None]:
    """The language of each step that is long enough to be told: 16 letters, each counted as so many Latin ones.

    By `judge_answers` on the whole answer with a step per line, so that a short step is judged beside the others.
    asked_in: the language that is taken where words could be of several. None for a step of no known language.
    Raises LanguageError for a language that is not among `known_languages()`.
    """
    return line_languages(judge_answers(["\n".join(written_steps(text))], [asked_in])[0])


def step_shares(
    steps: Sequence[Sequence[Language | None]],
    questions: Sequence[Sequence[Language | None]],
    *,
    asked_in: Language,
    against: Language,
) -> list[StepShare]:
    """Shares of steps in the question's language, in the one compared with, and in others, over some answers.

    steps, questions: languages by `step_languages` of each answer's steps, and of each question's sentences.
    A language that is not among `known_languages()` has no share: no step is ever judged to be in it.
    """
    groups = [asked_in, *((against,) if against != asked_in and against in known_languages() else ())]
    shares = []
    for name in (*groups, "other"):

        def hits(rows: Sequence[Sequence[Language | None]], name: str = name) -> list[int]:
            return [sum(group_of(tag, groups) == name for tag in row) for row in rows]

        sizes, of_questions = [len(row) for row in steps], sum(map(len, questions))
        shares.append(
            StepShare(
                asked_in,
                name,
                sum(size > 0 for size in sizes),
                sum(sizes),
                sum(hits(steps)) / sum(sizes) if sum(sizes) else float("nan"),
                ratio_interval(hits(steps), sizes),
                sum(hits(questions)) / of_questions if of_questions else float("nan"),
            )
        )
    return shares


def group_of(tag: Language | None, groups: Sequence[Language]) -> str:
    """Which of some languages a step is in, or "other".

    A step is judged under another name than the one that was asked for: in an English question Norwegian is `nb`, where
    `no` is meant, and Chinese `zh`, where `zh-Hans` is. What `judge_answers` takes for one language is one here.
    """
    if tag is None or tag in groups:
        return tag or "other"
    return next((name for name in groups if tag in accepted(name) or name in accepted(tag)), "other")


def share_in(steps: Sequence[Language | None], language: Language) -> float:
    """Share of one answer's steps that are in a language; NaN without a step, and where no step can be judged so."""
    if not steps or language not in known_languages():
        return float("nan")
    return sum(group_of(tag, [language]) == language for tag in steps) / len(steps)


def judged_languages(languages: Sequence[Language]) -> tuple[Language, ...]:
    """Those in which steps can be judged."""
    return tuple(tag for tag in languages if tag in known_languages())


def step_rows(shares: Mapping[Language, Sequence[StepShare]], *, condition: str = "") -> list[SiteEvidence]:
    """A row per language of the question and of the steps."""
    return [
        SiteEvidence(
            claim=f"{condition}{', ' if condition else ''}steps written in "
            + ("other languages" if part.written_in == "other" else part.written_in),
            language=part.asked_in,
            control="sentences of the questions, judged in the same way",
            n=part.answers,
            estimate=part.share,
            low=part.interval.low,
            high=part.interval.high,
            null=part.control,
            note=f"{part.steps} steps",
        )
        for parts in shares.values()
        for part in parts
    ]
