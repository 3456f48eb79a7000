"""Prompt sets and files of answers: the layouts of the Language Confusion Benchmark and of CLaS-Bench."""

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from babelscope.corpus import Message, asked, check_plain, text_lines
from babelscope.corpus.messages import ROW_KEYS, refuse_keys, system_of
from babelscope.corpus.table_rows import file_kind, file_rows
from babelscope.errors import CorpusError, LanguageError, first_line
from babelscope.languages import Language, parse_languages
from babelscope.upstream.hub_answers import no_data_set

PromptKind = Literal["language_confusion", "clas"]
TASKS = ("monolingual", "crosslingual")
"""Of the Language Confusion Benchmark, which scores each by itself; some sets have a part in both."""


class SetPrompt(NamedTuple):
    """One prompt of a set."""

    set: str
    """Name of the set, such as `aya` or `complex_prompts`; the folder's name for CLaS."""
    id: str
    """Number in its set and language: in CLaS, and in the benchmark's parallel sets, the same question in each."""
    language: Language
    """The language the answer should be in (Language Confusion), or the prompt is in (CLaS)."""
    text: str
    """What is asked; of messages what the user says last."""
    task: str = ""
    """Which of `TASKS`, by its column or by the name of its file or folder; empty elsewhere."""
    messages: tuple[Message, ...] = ()
    """The whole conversation, where the row has one; for a model's chat template alone."""


class SetAnswer(NamedTuple):
    """One answer read from a file."""

    set: str
    id: str
    language: Language
    """The language it should be in."""
    text: str
    task: str = ""
    """Which of `TASKS`, by its column or by the name of its file or folder; empty elsewhere."""


COLUMNS: Mapping[str, tuple[str, ...]] = {
    "set": ("set", "source"),
    "id": ("i", "id", "question_id", "question_idx"),
    "language": ("lang", "language", "target_language"),
    "prompt": ("prompt", "question", "text", "original_prompt"),
    "answer": ("answer", "completion", "output", "response"),
    "task": ("task",),
}
"""What a column may be called; the first that a row has is read."""
TEXTS = (*COLUMNS["prompt"], *COLUMNS["answer"])


def load_prompts(
    name: str | Path,
    *,
    kind: PromptKind,
    languages: Iterable[str] | None = None,
    sets: Iterable[str] | None = None,
    split: str = "test",
) -> list[SetPrompt]:
    """Prompts of a folder, a file or a data set of the hub, in the order they stand there.

    language_confusion: rows with language and prompt, and where they have it a set: CSV files at any depth, as in the
    benchmark's repository (`crosslingual/okapi/fr.csv`), or jsonl, also .gz .bz2 .xz .zst; a row of jsonl may have
    `messages`, for a chat model, in place of the prompt. A set without a column is the file's folder.
    clas: `<tag>.txt` with one question a line, the same in every file, as CLaS-Bench and the SemEval task that follows
    it ship them; or rows as above. The answers' target is chosen by whoever steers.
    languages, sets: which to keep; None means all. split: of a data set on the hub, whose rows are as above.
    Raises CorpusError for a folder without prompts, or a row without a needed column.
    """
    if kind not in get_args(PromptKind):
        raise CorpusError(f"prompt set kind {kind!r} is unknown; expected one of {', '.join(get_args(PromptKind))}")
    path, tags = Path(name), None if languages is None else parse_languages(languages)
    if os.path.exists(path):  # False for a name too long, where pathlib raises
        prompts = list(_prompts_of(path, kind))
    elif path.is_absolute() or str(name).startswith("."):
        raise CorpusError(f"{name}: no such file or folder; expected a prompt set; correct the path")
    else:
        rows = _hub_rows(str(name), split)
        prompts = _numbered(
            _prompt(row, str(name).rsplit("/", 1)[-1], None, f"{name}, row {i}") for i, row in enumerate(rows)
        )
    groups = None if sets is None else set(sets)
    selected = [
        prompt
        for prompt in prompts
        if (tags is None or prompt.language in tags) and (groups is None or prompt.set in groups)
    ]
    if not selected:
        available = sorted({f"{prompt.set}/{prompt.language}" for prompt in prompts})
        raise CorpusError(
            f"{name}: no prompt was found; expected {kind} prompts; there are {', '.join(available) or 'none'}"
        )
    return selected


def load_answers(path: str | Path) -> list[SetAnswer]:
    """Answers of a folder or file, empty ones too.

    Rows (jsonl, csv) with language and answer, as the benchmark's `outputs/*.csv`; or `<tag>.txt` with one answer a
    line, a blank line being an empty answer; or `<tag>.jsonl` whose rows have an answer, or a `text`.
    Raises CorpusError for a place without answers, or a row without a needed column.
    """
    answers: list[SetAnswer] = []
    for file in _files(Path(path)):
        tag = _tag_of(file)
        if file_kind(file) == "txt":
            if tag is None:
                raise CorpusError(f"{file}: its name is no language; expected <tag>.txt; rename it")
            answers += [SetAnswer("", str(number - 1), tag, line) for number, line in text_lines(file)]
            continue
        for i, (where, row) in enumerate(file_rows(file)):
            text = _cell(row, "answer", where)
            text = _cell(row, "prompt", where) if text is None and tag is not None else text
            place = _place(row, file.parent.name, tag, i, where, text is not None)
            answers.append(SetAnswer(*place, text or "", _cell(row, "task", where) or _task_of(file)))
    if not answers:
        missing = "" if os.path.exists(path) else ", there is no such file or folder"
        raise CorpusError(f"{path}: no answer was found{missing}; expected rows with language and answer, or <tag>.txt")
    return answers


def _prompts_of(path: Path, kind: PromptKind) -> Iterator[SetPrompt]:
    for file in _files(path):
        tag = _tag_of(file)
        if file_kind(file) != "txt":
            rows = (_prompt(row, file.parent.name, tag, where) for where, row in file_rows(file))
            yield from (prompt._replace(task=prompt.task or _task_of(file)) for prompt in _numbered(rows))
        elif kind == "clas" and tag is not None:
            lines = [line.strip() for _, line in text_lines(file) if line.strip()]
            yield from (SetPrompt(file.parent.name, str(i), tag, line) for i, line in enumerate(lines))


def _numbered(prompts: Iterable[SetPrompt]) -> list[SetPrompt]:
    """Rows without a number get their place in their set and language."""
    counts: dict[tuple[str, str, Language], int] = {}
    numbered = []
    for prompt in prompts:
        group = (prompt.task, prompt.set, prompt.language)
        place = counts.get(group, 0)
        counts[group] = place + 1
        numbered.append(prompt if prompt.id else prompt._replace(id=str(place)))
    return numbered


def _prompt(row: Mapping[str, Any], folder: str, tag: Language | None, where: str) -> SetPrompt:
    refuse_keys(row, ROW_KEYS, where)
    text, system = _cell(row, "prompt", where), system_of(row, where)
    turns = asked(row, where=where) if "messages" in row else ()
    if system and text and not turns:
        turns = asked(text, system=system, where=where)
    text = turns[-1].content if turns else text
    group, number, language = _place(row, folder, tag, None, where, text is not None)
    return SetPrompt(group, number, language, text or "", _cell(row, "task", where) or "", turns)


def _place(
    row: Mapping[str, Any], folder: str, tag: Language | None, number: int | None, where: str, has_text: bool
) -> tuple[str, str, Language]:
    language = _cell(row, "language", where) or tag
    if language is None or not has_text:
        refuse_null(row, (*(COLUMNS["language"] if language is None else ()), *(() if has_text else TEXTS)), where)
        raise CorpusError(
            f"{where}: columns {', '.join(row)} came; expected a language ({', '.join(COLUMNS['language'])}) and text "
            f"({', '.join(TEXTS)}); rename them"
        )
    row_id = _cell(row, "id", where) or ("" if number is None else str(number))
    try:
        return _cell(row, "set", where) or folder, row_id, Language.parse(language)
    except LanguageError as err:
        raise LanguageError(f"{where}: {err}") from err


def refuse_null(row: Mapping[str, Any], columns: Iterable[str], where: str) -> None:
    """Raise CorpusError where a column that is looked for is there and holds nothing."""
    if nulls := [name for name in columns if name in row and row[name] is None]:
        raise CorpusError(
            f'{where}: {" and ".join(nulls)} came as null; expected text; write it, or "" for an empty answer'
        )


def _cell(row: Mapping[str, Any], what: str, where: str) -> str | None:
    """The text, or number, in the first column of a kind that a row has; raises CorpusError for anything else in it."""
    name = next((name for name in COLUMNS[what] if row.get(name) is not None), None)
    if name is None:
        return None
    value = row[name]
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise CorpusError(f"{where}: {name} is a {type(value).__name__}; expected text; correct the row")
    return str(value)


def _files(path: Path) -> list[Path]:
    if not os.path.isdir(path):
        return [path] if os.path.exists(path) else []
    files = [file for file in path.rglob("*") if not file.is_dir() and file_kind(file) in ("csv", "jsonl", "txt")]
    for file in files:
        check_plain(file, path)
    return sorted(files, key=lambda file: file.relative_to(path).parts)


def _tag_of(file: Path) -> Language | None:
    """The language a file is named after."""
    try:
        return Language.parse(file.name.split(".")[0])
    except LanguageError:
        return None


def _task_of(file: Path) -> str:
    """The task a file, or a folder above it, is named after; the nearest."""
    names = (file.name.split(".")[0], *(folder.name for folder in file.parents))
    return next((name for name in names if name in TASKS), "")


def _hub_rows(name: str, split: str) -> Iterable[Mapping[str, Any]]:
    from datasets import load_dataset
    from datasets.exceptions import DatasetNotFoundError

    if reason := no_data_set(name):
        raise CorpusError(f"prompts {reason}")
    try:
        return load_dataset(name, split=split)  # pyright: ignore[reportReturnType]
    except (DatasetNotFoundError, OSError, ValueError, RuntimeError) as err:
        raise CorpusError(
            f"prompts {name!r}: no file or folder here and no data set ({first_line(err)}); expected one whose text is "
            "in files, as code of a data set is never run; check the name"
        ) from err
