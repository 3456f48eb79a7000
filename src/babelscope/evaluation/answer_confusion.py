"""Language confusion of a whole set of answers: both forms by task, prompt set and language, and their averages."""

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from typing import Any, NamedTuple

from babelscope.evaluation.confusion import Confusion, average_confusion, corrected_confusion, published_confusion
from babelscope.evaluation.identifiers import Identifier, judge_by
from babelscope.evaluation.prompts import SetAnswer
from babelscope.languages import Language


class Cell(NamedTuple):
    """What is scored by itself."""

    task: str
    set: str
    language: Language


@dataclass(frozen=True)
class AnswerConfusion:
    """The pass rates of a set of answers."""

    forms: Mapping[str, Mapping[Cell, Confusion]]
    """"corrected", and "published" where it was asked for."""
    verdicts: Mapping[Language, Mapping[str, int]]
    """How many answers of each language were right, empty, in another language and so on."""

    def rows(self, form: str) -> list[dict[str, Any]]:
        """One row per task, prompt set and language."""
        return [{"task": cell.task, "set": cell.set, **rates_of(score)} for cell, score in self.forms[form].items()]

    def averages(self, form: str, task: str | None = None) -> dict[str, Any]:
        """Averages over the languages of one task, as the benchmark has them; None means over all there are."""
        scores: dict[tuple[str, str], Confusion] = {
            (f"{cell.task}/{cell.set}", cell.language): score
            for cell, score in self.forms[form].items()
            if task in (None, cell.task)
        }
        return average_confusion(scores)._asdict()

    def as_dict(self) -> dict[str, Any]:
        """Verdicts, rows and averages, also of each task by itself."""
        tasks = sorted({cell.task for cell in self.forms["corrected"] if cell.task})
        return {
            "verdicts": self.verdicts,
            **{form: self.rows(form) for form in self.forms},
            "averages": {form: self.averages(form) for form in self.forms},
            "tasks": {task: {form: self.averages(form, task) for form in self.forms} for task in tasks},
        }


def rates_of(score: Confusion) -> dict[str, Any]:
    """The rates of a cell, without what is known of each answer."""
    return {name: value for name, value in score._asdict().items() if name != "passed"}


def confusion_of_answers(
    answers: Iterable[SetAnswer], *, identifier: Identifier, english: Set[str], published: bool = True
) -> AnswerConfusion:
    """Judge answers, and count how many lines and words are in the language that they should be in.

    english: the words that count as English. published: work out the benchmark's own form too, which needs a word
    cutter for Chinese and Japanese. Raises what the two forms raise.
    """
    texts: dict[Cell, list[str]] = {}
    for answer in answers:
        texts.setdefault(Cell(answer.task, answer.set, answer.language), []).append(answer.text)
    scorers = {"corrected": corrected_confusion, **({"published": published_confusion} if published else {})}
    forms = {
        form: {
            cell: score(cell_answers, cell.language, identifier=identifier, english=english)
            for cell, cell_answers in texts.items()
        }
        for form, score in scorers.items()
    }
    verdicts: dict[Language, dict[str, int]] = {}
    for cell, cell_answers in texts.items():
        for judged in judge_by(identifier, cell_answers, cell.language):
            counts = verdicts.setdefault(cell.language, {})
            counts[judged.verdict] = counts.get(judged.verdict, 0) + 1
    return AnswerConfusion(forms, verdicts)
