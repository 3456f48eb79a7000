"""Whether an answer is in its target language: the judge's rule, and how varied answers are."""

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Literal, NamedTuple

from babelscope.corpus import Corpus
from babelscope.errors import CorpusError, LanguageError, MeasurementError, refuse_one_text
from babelscope.evaluation.known_scripts import known_by_script
from babelscope.evaluation.labelled_words import NAME, LabelledWord, WordLabeller, guess_text, label_by_script
from babelscope.evaluation.prose import damaged_share, plain_prose, visible, without_repeats, words_of
from babelscope.evaluation.word_evidence import CANDIDATES
from babelscope.languages import Language

MIN_LETTERS = 16.0
"""Letters an answer needs, each counted as so many Latin ones (`LETTER_WEIGHT`): five Han characters and a half."""
MAX_DAMAGED = 0.02
"""Share of damaged characters above which an answer is broken."""
FOREIGN = 0.1
"""Share of the letters in other languages from which an answer is mixed: names and a foreign word or two are less."""
LABEL_LENGTH = 2_000
"""Characters of a line by which its label is checked: a book on one line takes minutes, and says no more."""
FEWEST_LABELS = 5
"""Lines long enough to be judged by which the labels of a corpus are refused, unless it has fewer lines."""
WHOLLY = 0.85
"""Share of the letters in other languages from which the answer is in another language."""

Verdict = Literal["right", "other language", "mixed", "short", "empty", "broken"]


class Recognition(NamedTuple):
    """What one answer was judged to be, and why."""

    verdict: Verdict
    language: Language | None
    """The language of most of its letters; None where it has none, or none that is known."""
    lines: tuple[tuple[str, Language | None], ...]
    """Each line that is not blank, with the language of most of its letters."""
    letters: float = 0.0
    """Letters outside code and addresses, each counted as so many Latin ones."""
    scripts: Mapping[str, float] = {}
    """Share of those letters by script, as ISO 15924 codes."""
    languages: Mapping[str, float] = {}
    """Share of the letters by language, most first; names in Latin letters in another script are left out."""
    segments: tuple[tuple[str, Language | None], ...] = ()
    """Runs of words of one language, in order."""
    reason: str = ""
    """What decided, in a few words."""


@cache
def known_languages() -> frozenset[Language]:
    """The languages an answer can be judged in without an identifier of your own.

    Those lingua tells apart among languages of their script, `zh` and `ja`, and those whose script is their own.
    Neighbours are told apart as far as their words are: `bs`, `hr` and `sr-Latn` are not, nor are two languages of one
    row of `OWN_SCRIPT`; docs/judging-answers.md has the error rates of `da`/`nb`, `cs`/`sk`, `id`/`ms` and others.
    """
    by_words = {tag for tags in CANDIDATES.values() for tag in tags}
    written = ("no", "zh", "zh-Hans", "zh-Hant", "ja", "sr-Latn", "sr-Cyrl")
    return frozenset(Language.parse(tag) for tag in (*by_words, *written)) | known_by_script()


def detect_languages(texts: Sequence[str]) -> list[Language | None]:
    """The language of most letters of each text among `known_languages()`; None where no known letter occurs."""
    check_texts(texts, "texts")
    return [guess_text(words_of(plain_prose(text)))[0] for text in texts]


def check_targets(targets: Sequence[str]) -> list[Language]:
    """Parsed targets; raises LanguageError for those that cannot be judged, all at once."""
    tags = [Language.parse(target) for target in targets]
    unknown = sorted({tag for tag in tags if tag not in known_languages()})
    wider = {tag: base_tag for tag in unknown if (base_tag := variant_of(tag))}
    faults: list[str] = []
    if wider:
        write = ", ".join(f"{str(base_tag)!r} for {str(tag)!r}" for tag, base_tag in wider.items())
        faults.append(
            f"{', '.join(wider)} cannot be recognised: variants of a language are not told apart; write {write}"
        )
    if strangers := [tag for tag in unknown if tag not in wider]:
        faults.append(
            f"{', '.join(strangers)} cannot be recognised; expected one of {', '.join(sorted(known_languages()))}; "
            "name an identifier that knows it (a fastText model: --identifier FILE --labels SET)"
        )
    if faults:
        raise LanguageError("; ".join(faults))
    return tags


def variant_of(tag: Language) -> Language | None:
    """The known tag of which a tag with a region is a variant: `pt` of `pt-BR`, `zh-Hant` of `zh-TW`; else None."""
    base = Language(tag.split("-")[0])
    wider = [Language(f"{base}-{tag.script}"), *([base] if base.script == tag.script else [])]
    return next((base_tag for base_tag in wider if base_tag != tag and base_tag in known_languages()), None)


def check_texts(texts: Sequence[object], what: str) -> None:
    """Raise MeasurementError, with the place of the first, where something else than a text came."""
    refuse_one_text(texts, what, MeasurementError)
    for place, text in enumerate(texts):
        if not isinstance(text, str):
            raise MeasurementError(
                f"{what}[{place}] is {type(text).__name__} {text!r:.60}; expected a text; leave it out, or decode it"
            )


def judge_answers(answers: Sequence[str], targets: Sequence[str]) -> list[Recognition]:
    """Whether each answer is in its target language, with the shares by script and language that decide it.

    answers, targets: one target, a BCP-47 tag, for each answer.
    Code, addresses, digits, signs and emoji are left out. What is left is cut into words, each word is given to the
    target or to another language (`switching`, `han`; by script where the scripts differ), and letters are counted,
    each as so many Latin ones. The verdict is the first that fits:

    - "empty": nothing but white space and signs that are not seen (U+200B, U+FEFF);
    - "broken": more than 2 % of the characters are damaged (U+FFFD, controls), or the answer is long enough only
      because something in it is repeated without a break;
    - "short": fewer than 16 letters: a sentence of three or four words, of six Han characters;
    - "other language": 85 % or more of the letters are in other languages;
    - "mixed": 10 % or more are, or a line of 16 letters or more is;
    - "right".

    Loops that are shorter than the rest, and one answer to all prompts, are right here and low in `distinct_n`.
    Raises MeasurementError for an answer that is no text and unless there is one target for each, and LanguageError
    for targets that cannot be told: `pt-BR` is not told from `pt`.
    """
    check_texts(answers, "answers")
    if len(answers) != len(targets):
        raise MeasurementError(f"{len(targets)} targets came for {len(answers)} answers; expected one for each")
    return [
        judge_text(answer, tag, label_by_script) for answer, tag in zip(answers, check_targets(targets), strict=True)
    ]


def judge_answer(answer: str, target: str) -> Recognition:
    """Whether one answer is in the target language; the rules are those of `judge_answers`."""
    return judge_answers([answer], [target])[0]


def judge_text(answer: str, target: Language, labeller: WordLabeller) -> Recognition:
    """The verdict on one answer with its words labelled by `labeller`."""
    if not visible(answer):
        return Recognition("empty", None, (), reason="nothing but white space and invisible signs")
    prose = plain_prose(answer)
    words = words_of(prose)
    labelled = labeller(words, prose, target)
    letters = sum((word.weight for word in words), 0.0)
    counted_words = [word for word in labelled if word.language != NAME]
    total = sum((word.weight for word in counted_words), 0.0)
    languages = _shares(counted_words, lambda word: str(word.language), total)
    foreign = 1 - languages.get(str(target), 0.0)
    lines = _lines(answer, labelled)
    verdict, reason = _verdict(answer, prose, letters, total, foreign, lines, target)
    most = max(languages, key=languages.__getitem__, default=None)
    return Recognition(
        verdict=verdict,
        language=None if most in (None, "None") else Language(most),
        lines=tuple((line, tag) for line, tag, _ in lines),
        letters=letters,
        scripts=_shares(labelled, lambda word: word.script, letters),
        languages=languages,
        segments=_segments(answer, labelled),
        reason=reason,
    )


def _verdict(
    answer: str, prose: str, letters: float, total: float, foreign: float, lines: list["Line"], target: Language
) -> tuple[Verdict, str]:
    damaged = damaged_share(answer)
    if damaged > MAX_DAMAGED:
        return "broken", f"{damaged:.0%} of the characters are damaged"
    if letters < MIN_LETTERS:
        return "short", f"{letters:.1f} letters; {MIN_LETTERS:g} are needed"
    letters_once = sum((word.weight for word in words_of(without_repeats(prose))), 0.0)
    if letters_once < MIN_LETTERS:
        return "broken", f"repeats itself without a break; written once it has {letters_once:.1f} letters"
    if not total or foreign >= WHOLLY:
        return "other language", f"{foreign:.0%} of the letters are not {target}"
    if foreign >= FOREIGN:
        return "mixed", f"{foreign:.0%} of the letters are not {target}"
    if wrong := next((line for line, tag, weight in lines if tag != target and weight >= MIN_LETTERS), None):
        return "mixed", f"the line {wrong[:40]!r} is not {target}"
    return "right", f"{1 - foreign:.0%} of the letters are {target}"


Line = tuple[str, Language | None, float]


def _lines(answer: str, words: Sequence[LabelledWord]) -> list[Line]:
    """Each line that is not blank: its text, its language, and the weight of its letters."""
    lines: list[Line] = []
    start = 0
    for line in answer.splitlines(keepends=True):
        line_words = [word for word in words if start <= word.start < start + len(line) and word.language != NAME]
        start += len(line)
        weights: Counter[Language | None] = Counter()
        for word in line_words:
            weights[word.language] += word.weight  # type: ignore[reportArgumentType]
        if line.strip():
            top = max(weights, key=weights.__getitem__, default=None)
            lines.append((line.strip(), top, float(weights.total())))
    return lines


def _shares(words: Sequence[LabelledWord], key: Callable[[LabelledWord], str], total: float) -> dict[str, float]:
    """Share of the letters by a key of the words, most first."""
    weights: Counter[str] = Counter()
    for word in words:
        weights[key(word)] += word.weight  # type: ignore[reportArgumentType]
    return {name: weight / total for name, weight in weights.most_common()} if total else {}


def _segments(answer: str, words: Sequence[LabelledWord]) -> tuple[tuple[str, Language | None], ...]:
    """Runs of words of one language, as they stand in the answer."""
    runs: list[tuple[int, Language | None]] = []
    for word in words:
        if word.language != NAME and (not runs or runs[-1][1] != word.language):
            runs.append((word.start, word.language))
    ends = [start for start, _ in runs[1:]] + [len(answer)] * bool(runs)
    return tuple((answer[start:end].strip(), tag) for (start, tag), end in zip(runs, ends, strict=True))


def line_languages(recognition: Recognition) -> list[Language | None]:
    """Languages of an answer's lines that are long enough to be told."""
    weights = [sum(word.weight for word in words_of(plain_prose(line))) for line, _ in recognition.lines]
    return [tag for (_, tag), weight in zip(recognition.lines, weights, strict=True) if weight >= MIN_LETTERS]


def distinct_n(answers: Sequence[Sequence[int]], n: int = 4) -> float:
    """Distinct n-grams of tokens over all of them, pooled over the answers; NaN where there is none.

    Low values mean loops within an answer, or the same answer to every prompt.
    """
    grams = Counter(tuple(ids[i : i + n]) for ids in answers for i in range(len(ids) - n + 1))
    return len(grams) / grams.total() if grams else float("nan")


def check_labels(corpus: Corpus, *, sample: int = 200, seed: int = 0) -> None:
    """Raise CorpusError where more than half of 200 sampled lines are in another language, by `judge_answers`.

    Of each line the first 2,000 characters are judged. Lines that are too short do not count, and fewer than five
    others say nothing of a longer text; languages that cannot be recognised pass.
    """
    for tag, documents in corpus.items():
        if tag not in known_languages():
            continue
        lines = [document.text[:LABEL_LENGTH] for document in documents]
        if len(lines) > sample:
            lines = random.Random(seed).sample(lines, sample)
        judged = judge_answers(lines, [tag] * len(lines))
        mistaken_for = Counter(
            str(recognition.language) for recognition in judged if recognition.verdict == "other language"
        )
        counted = sum(recognition.verdict not in ("short", "empty") for recognition in judged)
        # Of lines that are nearly all too short, one or two may be mistaken by chance.
        if counted >= min(len(lines), FEWEST_LABELS) and mistaken_for.total() > counted / 2:
            raise CorpusError(
                f"{corpus.name}: {mistaken_for.total()} of {counted} sampled lines labelled {tag!r} are another "
                f"language (mostly {mistaken_for.most_common(1)[0][0]!r}); expected {tag!r}; correct it, or switch the "
                "check off"
            )
