"""The same questions in several languages: a table of one's own, and the folders of MGSM and XCOPA."""

import logging
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from babelscope.corpus import COMPRESSED, check_plain, clean_text
from babelscope.corpus.file_lines import text_lines
from babelscope.corpus.table_rows import TABLES, file_kind, file_rows
from babelscope.errors import CorpusError, LanguageError
from babelscope.languages import Language, parse_languages
from babelscope.languages.scripts import UNSPACED
from babelscope.probes.thought.extracted_answers import last_number

log = logging.getLogger(__name__)
AnswerKind = Literal["number", "choice"]
PUBLISHED = "mgsm_"
"""How the files of MGSM begin: `mgsm_de.tsv`, question and answer without a head."""
CONNECTORS: Mapping[str, tuple[str, str]] = {
    "en": ("because", "so"),
    "et": ("sest", "seetõttu"),
    "ht": ("paske", "donk"),
    "id": ("karena", "jadi"),
    "it": ("perché", "quindi"),
    "qu": ("imarayku", "chayrayku"),
    "sw": ("kwa sababu", "kwa hivyo"),
    "ta": ("ஏனெனில்", "எனவே"),
    "th": ("เพราะ", "ดังนั้น"),
    "tr": ("çünkü", "bu yüzden"),
    "vi": ("vì", "vì vậy"),
    "zh": ("因为", "所以"),
}
"""Between a premise of XCOPA and what is asked for: its cause, and its effect. Not reviewed by native speakers."""
ENDS = ".。!！?？।"


class AskedQuestion(NamedTuple):
    """One question in one language."""

    text: str
    answer: str
    """A number as `last_number` writes it, or the place of the right option, counted from 1."""
    options: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class QuestionTable:
    """Questions that every language of the table has."""

    name: str
    languages: tuple[Language, ...]
    ids: tuple[str, ...]
    questions: Mapping[tuple[Language, str], AskedQuestion]

    @property
    def kind(self) -> AnswerKind:
        """Whether a number is asked for, or one of some options."""
        return "choice" if next(iter(self.questions.values())).options else "number"

    def answer(self, name: str) -> str:
        """The right answer of a question: the same in every language."""
        return self.questions[self.languages[0], name].answer

    def only(self, languages: Sequence[str] = (), *, count: int = 0) -> "QuestionTable":
        """Some languages, in this order, and the first `count` questions; none and 0 leave them as they are.

        Raises LanguageError for a language that the table lacks.
        """
        tags = parse_languages(languages) if languages else self.languages
        if absent := [tag for tag in tags if tag not in self.languages]:
            raise LanguageError(
                f"{', '.join(absent)} came; {self.name} has questions in {', '.join(self.languages)}; choose of these"
            )
        return replace(self, languages=tags, ids=self.ids[: count or None])


def read_questions(path: str | Path) -> QuestionTable:
    """Questions of a file, or of a folder with a file per language.

    A file: rows (.jsonl, .csv, .tsv, packed or not) with `id`, `language`, `question` and `answer`, a number; or with
    `choice1`, `choice2` … too, and as `answer` the place of the right one, counted from 1.
    A folder: `<tag>.jsonl` and so on with the same columns; without `id` line i is the same question in every language,
    as in MGSM, whose `mgsm_<tag>.tsv` are read too. Rows of XCOPA (`premise`, `question` for cause or effect,
    `choice1`, `choice2`, `label` counted from 0) are read from `<tag>.jsonl` and its own `<tag>/<split>.<tag>.jsonl`.
    A question that some language lacks is left out, with a line in the log.
    Raises CorpusError for what has not this form, for questions of two kinds, and where two languages have different
    right answers to one question; LanguageError for one language alone.
    """
    place = Path(path)
    if not os.path.exists(path):
        raise CorpusError(f"{path}: no such file or folder; expected questions; correct the path")
    by_language: dict[Language, dict[str, AskedQuestion]] = {}
    for where, tag, name, question in question_rows(place):
        part = by_language.setdefault(tag, {})
        if name in part:
            raise CorpusError(f"{where}: question {name} came twice in {tag}; expected each id once; rename one")
        part[name] = question
    if len(by_language) < 2:
        received = ", ".join(by_language) or "no question"
        raise LanguageError(f"{path}: {received} came; expected the same questions in two languages or more; add some")
    common = set.intersection(*({*part} for part in by_language.values()))
    ids = tuple(name for name in next(iter(by_language.values())) if name in common)
    all_ids = {name for part in by_language.values() for name in part}
    if len(ids) < len(all_ids):
        log.warning("%s: %d of %d questions are not in every language, and are left out", path, len(all_ids) - len(ids),
                    len(all_ids))  # fmt: skip
    questions = {(tag, name): part[name] for tag, part in by_language.items() for name in ids}
    table = QuestionTable(str(path), tuple(by_language), ids, questions)
    check_alike(table)
    return table


def check_alike(table: QuestionTable) -> None:
    """Raise CorpusError without a question, for questions of two kinds, and for answers that differ by language."""
    if not table.ids:
        raise CorpusError(f"{table.name}: no question is in every language; expected the same ids; correct them")
    if len({len(question.options) for question in table.questions.values()}) > 1:
        raise CorpusError(
            f"{table.name}: questions with options and without, or with more and fewer, came; expected one kind; "
            "divide the file"
        )
    for name in table.ids:
        answers = Counter(table.questions[tag, name].answer for tag in table.languages)
        if len(answers) > 1:
            odd = next(
                tag for tag in table.languages if table.questions[tag, name].answer == answers.most_common()[-1][0]
            )
            raise CorpusError(
                f"{table.name}: question {name} has the answers {', '.join(answers)} (in {odd} "
                f"{table.questions[odd, name].answer}); expected the same in every language; check that ids go together"
            )


def question_rows(place: Path) -> Iterator[tuple[str, Language, str, AskedQuestion]]:
    """Where it stands, language, id, and the question, of every row."""
    if not os.path.isdir(place):
        for number, (where, row) in enumerate(file_rows(place), start=1):
            if "language" not in row:
                raise CorpusError(
                    f"{where}: columns {', '.join(row)} came; expected id, language, question and answer; rename them"
                )
            yield where, *read_row(row, where, language_of_row(str(row["language"]), where), "", number)
        return
    files = sorted(file for file in place.rglob("*") if file.is_file() and file_kind(file) in TABLES)
    for file in files:
        check_plain(file, place)
        parts = file.name.removeprefix(PUBLISHED).split(".")
        parts = parts[: -2 if f".{parts[-1]}" in COMPRESSED else -1]
        tag = language_of_row(parts[-1], str(file))
        split = ".".join(parts[:-1])
        rows = without_head(file) if file.name.startswith(PUBLISHED) else file_rows(file)
        for number, (where, row) in enumerate(rows, start=1):
            yield where, *read_row(row, where, tag, split, number)


def without_head(file: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Rows of a file of MGSM as it was published."""
    for number, line in text_lines(file):
        if line.strip():
            cells = line.split("\t")
            if len(cells) != 2:
                raise CorpusError(f"{file}, line {number}: {len(cells)} cells came; expected question and answer")
            yield f"{file}, line {number}", dict(zip(("question", "answer"), cells, strict=True))


def language_of_row(word: str, where: str) -> Language:
    """The tag; raises LanguageError with its place."""
    try:
        return Language.parse(word)
    except LanguageError as err:
        raise LanguageError(f"{where}: {err}") from err


def read_row(
    row: Mapping[str, Any], where: str, tag: Language, split: str, number: int
) -> tuple[Language, str, AskedQuestion]:
    """A row as its language, id and question."""
    copa = "premise" in row
    needed = ("premise", "question", "choice1", "choice2", "label") if copa else ("question", "answer")
    if lacking := [name for name in needed if row.get(name) in (None, "")]:
        raise CorpusError(f"{where}: {', '.join(lacking)} is missing; expected {', '.join(needed)}; add it")
    cells = {name: clean_text(str(value)) for name, value in row.items() if value is not None}
    numbers = [number for number in range(1, 100) if cells.get(f"choice{number}")]
    if numbers and numbers[-1] > len(numbers):
        # Those behind a gap would move up, and another one be the right one.
        raise CorpusError(f"{where}: choice{numbers[-1]} came, and one before it is empty; expected no gap; fill it")
    options = tuple(cells[f"choice{number}"] for number in numbers)
    name = cells.get("id") or "/".join(filter(None, (cells.get("split", split), cells.get("idx", str(number)))))
    text = copa_text(cells, tag, where) if copa else cells["question"]
    answer = cells["label"] if copa else cells["answer"]
    if not options:
        value = last_number(answer)
        if value is None:
            raise CorpusError(f"{where}: answer {answer!r} came; expected a number; correct it, or give options")
        return tag, name, AskedQuestion(text, value)
    if not answer.isdecimal() or not 1 <= int(answer) + copa <= len(options) or len(options) < 2:
        raise CorpusError(
            f"{where}: answer {answer!r} came with {len(options)} options; expected the place of one of two or more, "
            f"counted from {0 if copa else 1}; correct it"
        )
    if len({*options}) < len(options):
        raise CorpusError(f"{where}: two options are the same; expected different ones; correct them")
    return tag, name, AskedQuestion(text, str(int(answer) + copa), options)


def copa_text(cells: Mapping[str, str], tag: Language, where: str) -> str:
    """A premise of XCOPA, without its full stop, and the word that asks for its cause or effect."""
    if tag not in CONNECTORS or cells["question"] not in ("cause", "effect"):
        raise CorpusError(
            f"{where}: {cells['question']!r} in {tag} came; expected cause or effect, in {', '.join(CONNECTORS)}; "
            "write the questions in full into a file with id, language, question, choice1, choice2 and answer"
        )
    connector = CONNECTORS[tag][cells["question"] == "effect"]
    premise = cells["premise"].rstrip().rstrip(ENDS)
    return f"{premise}{'' if tag.script in UNSPACED else ' '}{connector}"
