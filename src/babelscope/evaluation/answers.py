"""Which language an answer is in, and how varied it is. The only importer of lingua."""

import random
from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Literal, NamedTuple

from lingua import Language as LinguaLanguage
from lingua import LanguageDetector, LanguageDetectorBuilder

from babelscope.corpus import Corpus
from babelscope.errors import CorpusError, LanguageError
from babelscope.languages import Language

# fmt: off
LINGUA = (
    "ar", "bg", "ca", "cs", "cy", "de", "en", "eo", "es", "et", "eu", "fa", "fi", "fr", "hi",
    "hu", "id", "it", "ja", "ko", "nl", "pl", "pt", "ru", "sw", "tr", "uk", "vi", "zh",
)
# fmt: on
"""The languages told apart: one left out can not be recognised, and more of them confuse."""

MIN_CHARACTERS = 20
MAX_REPLACEMENT = 0.05
CONFIDENT = 0.9
"""Confidence from which a line counts as another language when labels are checked."""

Verdict = Literal["right", "other language", "mixed", "short", "empty", "broken"]


class Recognition(NamedTuple):
    """What one answer was judged to be."""

    verdict: Verdict
    language: Language | None
    """Top language of the whole answer; None where it is empty or nothing was recognised."""
    lines: tuple[tuple[str, Language | None], ...]
    """Each line that is not blank, with its own top language."""


@cache
def known_languages() -> frozenset[Language]:
    """The 29 languages that can be recognised."""
    return frozenset(Language.parse(tag) for tag in LINGUA)


@cache
def detector() -> LanguageDetector:
    """The one language detector, built at first use."""
    by_code = {language.iso_code_639_1.name.lower(): language for language in LinguaLanguage.all()}
    return LanguageDetectorBuilder.from_languages(*(by_code[tag] for tag in LINGUA)).build()


def detect_languages(texts: Sequence[str]) -> list[Language | None]:
    """Top language of each text among `known_languages()`; None where none of their letters occur."""
    found = detector().detect_languages_in_parallel_of(list(texts))
    return [None if language is None else Language(language.iso_code_639_1.name.lower()) for language in found]


def judge_answers(answers: Sequence[str], targets: Sequence[str]) -> list[Recognition]:
    """Judge answers together; the rules are those of `judge_answer`."""
    unknown = sorted({tag for tag in targets if Language.parse(tag) not in known_languages()})
    if unknown:
        raise LanguageError(f"{', '.join(unknown)} can not be recognised; expected one of {', '.join(LINGUA)}")
    lines = [[line.strip() for line in answer.splitlines() if line.strip()] for answer in answers]
    flat = [line for group in lines for line in group]
    tops, line_tops = detect_languages(answers), iter(detect_languages(flat))
    return [
        judged(answer, Language.parse(target), top, tuple((line, next(line_tops)) for line in group))
        for answer, target, top, group in zip(answers, targets, tops, lines, strict=True)
    ]


def judge_answer(answer: str, target: str) -> Recognition:
    """Whether an answer is in the target language.

    "right" means: at least 20 characters, at most 5 % replacement characters, the target is the top language of the
    whole answer, and of every line of at least 20 characters. Anything else is a failure with its name, never skipped.
    Raises LanguageError for a target that can not be recognised.
    """
    return judge_answers([answer], [target])[0]


def judged(
    answer: str, target: Language, top: Language | None, lines: tuple[tuple[str, Language | None], ...]
) -> Recognition:
    """The verdict on one answer whose languages are known."""
    text = answer.strip()
    long_lines = [tag for line, tag in lines if len(line) >= MIN_CHARACTERS]
    verdict: Verdict = "right"
    if not text:
        verdict = "empty"
    elif len(text) < MIN_CHARACTERS:
        verdict = "short"
    elif text.count("�") > MAX_REPLACEMENT * len(text):
        verdict = "broken"
    elif top != target:
        verdict = "other language"
    elif any(tag != target for tag in long_lines):
        verdict = "mixed"
    return Recognition(verdict, top if text else None, lines)


def distinct_n(answers: Sequence[Sequence[int]], n: int = 4) -> float:
    """Distinct n-grams of tokens over all of them, pooled over the answers; NaN where there is none.

    Low values mean loops within an answer, or the same answer to every prompt.
    """
    grams = Counter(tuple(ids[i : i + n]) for ids in answers for i in range(len(ids) - n + 1))
    return len(grams) / grams.total() if grams else float("nan")


def check_labels(corpus: Corpus, *, sample: int = 200, seed: int = 0) -> None:
    """Raise CorpusError where more than half of 200 sampled lines are confidently in another language.

    Languages that can not be recognised pass.
    """
    for tag, documents in corpus.items():
        if tag not in known_languages():
            continue
        lines = [document.text for document in documents]
        if len(lines) > sample:
            lines = random.Random(seed).sample(lines, sample)
        values = detector().compute_language_confidence_values_in_parallel(lines)
        tops = [max(value, key=lambda entry: entry.value) for value in values]
        others = Counter(entry.language.iso_code_639_1.name.lower() for entry in tops if entry.value >= CONFIDENT)
        others.pop(str(tag), None)
        if others.total() > len(lines) / 2:
            raise CorpusError(
                f"{corpus.name}: {others.total()} of {len(lines)} sampled lines labelled {tag!r} are another language "
                f"(mostly {others.most_common(1)[0][0]!r}); expected {tag!r}; correct it, or switch the check off"
            )
