"""Language identifiers behind one call: lingua, a fastText model by path, or any function."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, get_args

from babelscope.errors import LanguageError, PrerequisiteError
from babelscope.evaluation.answers import LINGUA, Recognition, detector, judge_answers, judged
from babelscope.evaluation.labels import LabelSet, labels_of, language_of
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
        """The labels that count as the target; raises LanguageError where it can not be recognised."""
        labels = labels_of(target, self.label_set)
        if self.known is not None and not labels & self.known:
            raise LanguageError(
                f"{target} can not be recognised by {self.name}; expected one of {', '.join(sorted(self.known))}; "
                "name another identifier"
            )
        return labels

    def languages(self, texts: Sequence[str], target: str) -> list[Language | None]:
        """Language of each text: the target itself where the label counts as it, else what the label names."""
        wanted, tag = self.check(target), Language.parse(target)
        flat = [" ".join(text.split()) for text in texts]
        return [tag if g.label in wanted else language_of(g.label, self.label_set) for g in self.guess(flat)]


Named = Identifier | str | Path | Callable[[Sequence[str]], Sequence[Guess]]
"""An identifier, "lingua", the path of a fastText model, or a function from texts to guesses in our own tags."""


def open_identifier(name: Named = "lingua", *, labels: LabelSet | None = None) -> Identifier:
    """The identifier of that name; raises PrerequisiteError for a missing package or file.

    labels: whose labels a fastText model or a function speaks; a function speaks our own tags unless it says.
    """
    if isinstance(name, Identifier):
        return name
    if name == "lingua":
        return Identifier("lingua", "lingua", _guess_by_lingua, frozenset(LINGUA))
    if isinstance(name, str | Path):
        return _open_fasttext(Path(name), labels)
    return Identifier(getattr(name, "__name__", "function"), labels or "bcp47", name)


def _guess_by_lingua(texts: Sequence[str]) -> list[Guess]:
    """Top of lingua's 29 languages with its confidence among them; no guess where no letter is known."""
    values = detector().compute_language_confidence_values_in_parallel(list(texts))
    tops = [max(value, key=lambda entry: entry.value) for value in values]
    return [
        Guess(None if top.value == 0 else top.language.iso_code_639_1.name.lower(), float(top.value)) for top in tops
    ]


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
        found = [model.f.predict(f"{text}\n", 1, 0.0, "strict") for text in texts]
        return [
            Guess(f[0][1].removeprefix("__label__"), min(1.0, float(f[0][0]))) if f else Guess(None, 0) for f in found
        ]

    return Identifier(path.name, labels, guess)


def judge_by(identifier: Identifier, answers: Sequence[str], target: str) -> list[Recognition]:
    """Verdicts by the rules of `judge_answer`, with another identifier in lingua's place.

    Raises LanguageError for a target that the identifier can not give.
    """
    identifier.check(target)
    if identifier.label_set == "lingua":
        return judge_answers(answers, [target] * len(answers))
    lines = [[line.strip() for line in answer.splitlines() if line.strip()] for answer in answers]
    tops = identifier.languages(answers, target)
    each = iter(identifier.languages([line for group in lines for line in group], target))
    return [
        judged(answer, Language.parse(target), top, tuple((line, next(each)) for line in group))
        for answer, top, group in zip(answers, tops, lines, strict=True)
    ]
