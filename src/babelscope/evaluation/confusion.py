"""Line and word pass rate of the Language Confusion Benchmark, as published and corrected.

Source: Marchisio et al. 2024, arXiv:2406.20052, and the rules of its scoring script.
"""

from collections.abc import Collection, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from babelscope.corpus import load_corpus, text_lines
from babelscope.errors import MeasurementError, refuse_one_text
from babelscope.evaluation.identifiers import Identifier, Named, open_identifier
from babelscope.evaluation.segmentation import (
    DROPPED,
    Segment,
    corrected_tokens,
    latin_runs,
    normalize_completion,
    published_tokens,
)
from babelscope.languages import Language

BENCHMARK = ("ar", "de", "en", "es", "fr", "hi", "id", "it", "ja", "ko", "pt", "ru", "tr", "vi", "zh")
"""The benchmark's fifteen languages."""
WORD_LANGUAGES = frozenset({"ar", "hi", "ja", "ko", "ru", "zh"})
"""Those with a word pass rate: in Latin script an English word can be a word of the language."""
MIN_TOKENS = 5
MIN_SCORE = 0.3
MIN_ENGLISH = 4

Failure = Literal["empty", "short", "other language", "mixed", "english word"]


class Confusion(NamedTuple):
    """Pass rates of the answers meant for one language."""

    language: Language
    n: int
    """All answers."""
    scored: int
    """Answers with at least one line long enough; the corrected form scores all of them."""
    coverage: float
    """Share of the answers with at least one line long enough. At 0 the published rates are 1 and mean nothing."""
    lpr: float
    """Line pass rate: share of the scored answers without a line in another language."""
    line_accuracy: float
    """Mean over scored answers of the share of their lines in the language."""
    wpr: float | None
    """Word pass rate; None for a language without one."""
    failures: Mapping[Failure, int]
    """Answers by what is wrong with them; those that pass are in none."""
    passed: tuple[bool, ...]
    """By answer: no line in another language. A skipped one passes in the published form, and fails in the other."""

    @property
    def measured(self) -> bool:
        """Whether any answer was long enough to be scored."""
        return self.coverage > 0


@cache
def english_words(file: str | Path | None = None) -> frozenset[str]:
    """Words that give an answer away as English: those of a list written in small letters with more than 3 letters.

    file: one word per line. The benchmark reads a Unix `words` file of about 235,000 words, which is not bundled. With
    None the words are those of the bundled English sentences: about a thousand common ones, so that fewer English
    words are noticed and WPR can only be higher.
    """
    if file is None:
        corpora = [load_corpus("reference", ["en"], split=split) for split in ("train", "valid", "test")]
        words = [w for corpus in corpora for d in corpus["en"] for w in d.text.translate(DROPPED).split()]
        # A small letter in mid-sentence, and no digit: what a list of words would hold.
        words = [word for word in words if word.isalpha()]
    else:
        words = [line.strip() for _, line in text_lines(Path(file))]
    return frozenset(word for word in words if word.islower() and len(word) >= MIN_ENGLISH)


def published_confusion(
    answers: Sequence[str],
    language: str,
    *,
    identifier: Named = "lingua",
    english: Collection[str] | None = None,
    segment: Mapping[str, Segment] | None = None,
) -> Confusion:
    """LPR and WPR by the published rules.

    Lines of an answer (`normalize_completion`, cut at line ends) with fewer than 5 words are dropped; an answer without
    a line left is skipped. A line is right if the identifier gives its language with a probability above 0.3.
    LPR = 1 − answers with a wrong line / max(1, scored). WPR = 1 − answers with an English word / max(1, answers
    without a wrong line), where a word counts as English if it stands in the list as it is written.
    Where all are skipped both are 1: read `coverage` beside them. The published identifier is lid.176.
    Raises MeasurementError without answers.
    """
    refuse_one_text(answers, "answers", MeasurementError)
    tag, identify = Language.parse(language), open_identifier(identifier)
    lines = [normalize_completion(answer).split("\n") for answer in answers]
    words = [[published_tokens(line, tag, segment) for line in group] for group in lines]
    english_list = english_words() if english is None else frozenset(english)
    english_lines = [[any(word.strip() in english_list for word in line) for line in group] for group in words]
    return _score(
        tag, identify, lines, [[len(w) for w in group] for group in words], english_lines, answers, corrected=False
    )


def corrected_confusion(
    answers: Sequence[str], language: str, *, identifier: Named = "lingua", english: Collection[str] | None = None
) -> Confusion:
    """The same rates over all answers, where an answer must show its language to pass.

    Differs from the published form: empty answers, and answers without a line of 5 words, are failures and not
    skipped; so LPR cannot be 1 for silence. Words of unspaced scripts (Chinese, Japanese, Thai) are counted by
    characters, without jieba or fugashi; English words are looked for in every run of Latin letters. WPR is the share
    of all answers that pass both tests. Answers with right and wrong lines are failures and counted as "mixed".
    """
    refuse_one_text(answers, "answers", MeasurementError)
    tag, identify = Language.parse(language), open_identifier(identifier)
    lines = [normalize_completion(answer).split("\n") for answer in answers]
    english_list = english_words() if english is None else frozenset(english)
    counts = [[len(corrected_tokens(line, tag)) for line in group] for group in lines]
    english_lines = [[any(word in english_list for word in latin_runs(line)) for line in group] for group in lines]
    return _score(tag, identify, lines, counts, english_lines, answers, corrected=True)


def _score(
    tag: Language,
    identifier: Identifier,
    lines: Sequence[Sequence[str]],
    counts: Sequence[Sequence[int]],
    english: Sequence[Sequence[bool]],
    answers: Sequence[str],
    *,
    corrected: bool,
) -> Confusion:
    if not answers:
        raise MeasurementError(f"no answers came for {tag!r}; expected at least one; add some")
    scored_lines = [[i for i, n in enumerate(group) if n >= MIN_TOKENS] for group in counts]
    right = _right_lines(tag, identifier, lines, scored_lines)
    failures: dict[Failure, int] = {}
    for answer, line_verdicts, places, words in zip(answers, right, scored_lines, english, strict=True):
        failure = _failure(answer, line_verdicts, tag in WORD_LANGUAGES and any(words[i] for i in places))
        if failure:
            failures[failure] = failures.get(failure, 0) + 1
    scored = sum(map(bool, right))
    base = len(answers) if corrected else scored
    passed = tuple(all(line_verdicts) and (bool(line_verdicts) or not corrected) for line_verdicts in right)
    good = sum(passed) - (0 if corrected else len(right) - scored)
    shares = [sum(line_verdicts) / len(line_verdicts) for line_verdicts in right if line_verdicts] + [0.0] * (
        base - scored
    )
    spoiled = failures.get("english word", 0)
    wpr = (good - spoiled) / base if corrected else 1 - spoiled / max(1, good)
    return Confusion(
        language=tag,
        n=len(answers),
        scored=base,
        coverage=scored / len(answers),
        lpr=good / base if base else 1.0,
        line_accuracy=float(np.mean(shares)) if shares else 1.0,
        wpr=wpr if tag in WORD_LANGUAGES else None,
        failures=failures,
        passed=passed,
    )


def _failure(answer: str, right: Sequence[bool], english: bool) -> Failure | None:
    if not right:
        return "short" if answer.strip() else "empty"
    if not any(right):
        return "other language"
    if not all(right):
        return "mixed"
    return "english word" if english else None


def _right_lines(
    tag: Language, identifier: Identifier, lines: Sequence[Sequence[str]], scored_lines: Sequence[Sequence[int]]
) -> list[list[bool]]:
    """For each answer whether each kept line is in the language; all lines are identified together."""
    accepted_labels = identifier.check(tag)
    flat = [group[i] for group, places in zip(lines, scored_lines, strict=True) for i in places]
    guesses = iter(identifier.guess(flat) if flat else [])
    return [[_counts(next(guesses), accepted_labels) for _ in places] for places in scored_lines]


def _counts(guess: tuple[str | None, float], accepted_labels: frozenset[str]) -> bool:
    label, score = guess
    return label in accepted_labels and score > MIN_SCORE


class Rates(NamedTuple):
    """Averages over languages."""

    lpr: float
    line_accuracy: float
    wpr: float | None
    """Over the languages that have one."""
    coverage: float


def average_confusion(scores: Mapping[tuple[str, str], Confusion]) -> Rates:
    """Means as the benchmark averages: each language over its prompt sets, then over languages.

    scores: by (prompt set, language).
    """
    by_language: dict[str, list[Confusion]] = {}
    for (_, tag), score in scores.items():
        by_language.setdefault(tag, []).append(score)
    groups = by_language.values()
    words = [
        float(np.mean([s.wpr for s in group if s.wpr is not None])) for group in groups if group[0].wpr is not None
    ]
    return Rates(
        *(
            float(np.mean([np.mean([getattr(s, name) for s in group]) for group in groups]))
            for name in Rates._fields[:2]
        ),
        wpr=float(np.mean(words)) if words else None,
        coverage=float(np.mean([np.mean([s.coverage for s in group]) for group in groups])),
    )
