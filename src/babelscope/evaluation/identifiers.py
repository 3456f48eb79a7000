"""Language identifiers behind one call: lingua, a fastText model by path, or any function."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, get_args

from babelscope.errors import LanguageError, PrerequisiteError
from babelscope.evaluation.judged_answers import Recognition, judge_answers, judge_text, known_languages
from babelscope.evaluation.label_tables import LabelSet, labels_of, language_of
from babelscope.evaluation.labelled_words import LabelledWord, WordLabeller, accepted, guess_text, label_outside
from babelscope.evaluation.prose import SENTENCE_END, Word, plain_prose, words_of
from babelscope.languages import Language


class Guess(NamedTuple):
    """What an identifier says about one text."""

    label: str | None
    """Its own label; None where it says nothing."""
    score: float
    """Its probability, 0 … 1."""


@dataclass(frozen=True)
class Identifier:
    """A language identifier and whose labels it speaks."""

    name: str
    label_set: LabelSet
    guess: Callable[[Sequence[str]], Sequence[Guess]]
    """One guess a text, in order; texts have no line ends."""
    known: frozenset[str] | None = None
    """The labels it can give; None means all of its label set."""

    def check(self, target: str) -> frozenset[str]:
        """The labels that count as the target; raises LanguageError where it cannot be recognised."""
        words = self.label_set == "lingua"
        labels = frozenset(map(str, accepted(Language.parse(target)))) if words else labels_of(target, self.label_set)
        if self.known is not None and not labels & self.known:
            raise LanguageError(
                f"{target} cannot be recognised by {self.name}; expected one of {_first(sorted(self.known))}; "
                "name another identifier"
            )
        return labels

    def languages(self, texts: Sequence[str], target: str) -> list[Language | None]:
        """Language of each text: the target itself where the label counts as it, else what the label names."""
        accepted_labels, tag = self.check(target), Language.parse(target)
        flat = [" ".join(text.split()) for text in texts]
        return [tag if g.label in accepted_labels else language_of(g.label, self.label_set) for g in self.guess(flat)]


def _first(labels: Sequence[str], most: int = 100) -> str:
    """The labels in one line, the first hundred of them."""
    more = f" and {len(labels) - most} more" if len(labels) > most else ""
    return ", ".join(labels[:most]) + more


Named = Identifier | str | Path | Callable[[Sequence[str]], Sequence[Guess]]
"""An identifier, "lingua", the path of a fastText model, or a function from texts to guesses in our own tags."""


def open_identifier(name: Named = "lingua", *, labels: LabelSet | None = None) -> Identifier:
    """The identifier of that name; raises PrerequisiteError for a missing package or file.

    labels: whose labels a fastText model or a function speaks; a function speaks our own tags unless it says.
    """
    if isinstance(name, Identifier):
        return name
    if name == "lingua":
        return Identifier("lingua", "lingua", _guess_by_words, frozenset(map(str, known_languages())))
    if isinstance(name, str | Path):
        return _open_fasttext(Path(name), labels)
    return Identifier(getattr(name, "__name__", "function"), labels or "bcp47", name)


def _guess_by_words(texts: Sequence[str]) -> list[Guess]:
    """The language of each text by its script and words, with its probability among the languages of that script."""
    labels = [guess_text(words_of(plain_prose(text))) for text in texts]
    return [Guess(None if tag is None else str(tag), probability) for tag, probability in labels]


def _open_fasttext(path: Path, labels: LabelSet | None) -> Identifier:
    if labels is None:
        raise PrerequisiteError(
            f"identifier {str(path)!r} came without its label set; expected one of "
            f"{', '.join(get_args(LabelSet))}; name it with labels="
        )
    if not path.is_file():
        raise PrerequisiteError(f"identifier {str(path)!r}: no such file; expected 'lingua' or a fastText model")
    try:
        fasttext = import_module("fasttext")
    except ModuleNotFoundError as err:
        raise PrerequisiteError(
            f"identifier {path.name!r} needs the package fasttext, which is not installed; "
            "install babelscope[fasttext], or use lingua"
        ) from err
    try:
        model: Any = fasttext.load_model(str(path))
    except (ValueError, RuntimeError, MemoryError) as err:
        raise PrerequisiteError(f"{path}: is no fastText model ({err}); fetch it again") from err

    def guess(texts: Sequence[str]) -> list[Guess]:
        # The binding under `predict`: that one fails with numpy 2 in the package `fasttext` 0.9.3.
        predictions = [model.f.predict(f"{text}\n", 1, 0.0, "strict") for text in texts]
        return [
            Guess(f[0][1].removeprefix("__label__"), min(1.0, float(f[0][0]))) if f else Guess(None, 0)
            for f in predictions
        ]

    names = frozenset(label.removeprefix("__label__") for label in model.get_labels())
    return Identifier(path.name, labels, guess, names)


def judge_by(identifier: Identifier, answers: Sequence[str], target: str) -> list[Recognition]:
    """Verdicts by the rules of `judge_answers`, with an identifier of your own in the place of our word rule.

    It is asked about each sentence, long ones cut after about 40 letters, so that a mixture shows; letters in scripts
    that the target is not written in are foreign without asking. A piece counts as foreign from a probability of .5.

    Raises LanguageError for a target that the identifier cannot give.
    """
    identifier.check(target)
    if identifier.label_set == "lingua":
        return judge_answers(answers, [target] * len(answers))
    tag = Language.parse(target)
    return [judge_text(answer, tag, _labeller(identifier)) for answer in answers]


PIECE, SHORTEST = 40.0, 16.0
"""Letters, as Latin ones, at which a piece of a sentence is cut off for an identifier, and that a piece needs."""
SURE = 0.5
"""Probability from which a piece is believed to be in another language."""


def _labeller(identifier: Identifier) -> WordLabeller:
    """Words by the language that the identifier gives the piece of a sentence they stand in."""

    def label(words: Sequence[Word], prose: str, target: Language) -> list[LabelledWord]:
        labels, inside_places = label_outside(words, target)
        pieces = pieces_of([words[place] for place in inside_places], prose)
        accepted_labels, places = identifier.check(target), iter(inside_places)
        for piece, guess in zip(pieces, identifier.guess([text for text, _ in pieces]) if pieces else [], strict=True):
            guessed_language = language_of(guess.label, identifier.label_set)
            is_target = guess.label in accepted_labels or (len(pieces) > 1 and guess.score < SURE)
            for _ in range(piece[1]):
                labels[next(places)] = target if is_target else guessed_language
        return [LabelledWord(w.text, w.script, w.weight, w.start, tag) for w, tag in zip(words, labels, strict=True)]

    return label


def pieces_of(words: Sequence[Word], prose: str) -> list[tuple[str, int]]:
    """Sentences, the long ones cut after about 40 letters: text without line ends, and its number of words."""
    groups: list[list[Word]] = []
    weight = 0.0
    for place, word in enumerate(words):
        gap = prose[words[place - 1].start + len(words[place - 1].text) : word.start] if place else ""
        ended = weight >= SHORTEST and any(sign in SENTENCE_END for sign in gap)
        if not groups or ended or weight >= PIECE:
            groups.append([])
            weight = 0.0
        groups[-1].append(word)
        weight += word.weight
    if len(groups) > 1 and weight < SHORTEST:
        groups[-2].extend(groups.pop())
    return [
        (" ".join(prose[group[0].start : group[-1].start + len(group[-1].text)].split()), len(group))
        for group in groups
    ]
