"""What is asked, and what steers the answers, from the command line.

Prompts are texts, files of lines, and tables: JSONL files of texts or messages, CSV and TSV below a head of names.
"""

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from babelscope.artifacts import SteeringRecipe
from babelscope.cli.readable import number_of
from babelscope.cli.saved import open_recipe
from babelscope.corpus import COMPRESSED, Message, Messages, check_unicode, text_lines
from babelscope.corpus.messages import ROW_KEYS, kind_name, refuse_keys, system_of
from babelscope.corpus.table_rows import TABLES, UNREAD_KINDS, file_kind, file_rows
from babelscope.errors import ChatError, CorpusError
from babelscope.files.folder_kinds import format_of
from babelscope.files.strict_json import parse_json
from babelscope.languages import Language
from babelscope.steering.sweeps import ChatPrompts, Prompt, ask_as_chat
from babelscope.subnetworks import Delta

log = logging.getLogger(__name__)
NOBODY = Language("und")
TEXT_FIELDS = ("prompt", "text", "question")
"""What the text of a row may be called."""


def read_prompts(
    words: Sequence[str], *, chat: bool = False, system: str = "", source: Language = NOBODY
) -> list[Prompt]:
    """Prompts of some words, each a text or a file; with `chat` they are messages for the model's chat template.

    source: their language, where rows do not say. Raises ChatError for messages or a system prompt without `chat`,
    CorpusError for a file that cannot be read and a name that is no file.
    """
    if system and not chat:
        raise ChatError("--system came without --chat; expected both; add --chat, or write it into the prompts")
    prompts: list[Prompt] = []
    for word in words:
        if not os.path.isfile(word):
            check_no_name(word)
            prompts.append(as_prompt(word, str(len(prompts)), f"prompt {word[:20]!r}", chat, system, source))
            continue
        rows = prompt_rows(Path(word))
        log.info(
            "%s: %s, one per %s",
            word,
            number_of(len(rows), "prompt"),
            "row" if file_kind(Path(word)) in TABLES else "line",
        )
        for where, row in rows:
            prompts.append(as_prompt(row, str(len(prompts)), where, chat, system, source))
    return prompts


def prompt_rows(file: Path) -> list[tuple[str, Any]]:
    """What a file of prompts holds, each with its place for messages; raises CorpusError for one that holds none."""
    kind = file_kind(file)
    if kind == "jsonl":
        return list(jsonl_rows(file))
    if kind not in TABLES:
        check_no_table(file)
        return [(f"{file}, line {number}", line) for number, line in lines_of(file)]
    rows = list(file_rows(file))
    if not rows:
        raise CorpusError(f"{file}: holds no row; expected a head of names and rows below it; add some")
    return rows


def check_no_table(file: Path) -> None:
    """Raise CorpusError for a table where lines are read: its head and separators would be read as text."""
    if (kind := file_kind(file)) in (*TABLES, *UNREAD_KINDS):
        raise CorpusError(f"{file}: is a {kind} file; expected a .txt file of one text a line; write it so")


def lines_of(file: Path) -> list[tuple[int, str]]:
    """Number and text of each line of a file that is not blank, as in a corpus; raises CorpusError where none is."""
    lines = [(number, line) for number, line in text_lines(file) if line.strip()]
    if not lines:
        raise CorpusError(f"{file}: is empty; expected one text a line; write some")
    return lines


def read_lines(file: Path, what: str) -> list[str]:
    """The lines of a file that stand beside those of another, and one line in the log that says how many there were.

    Raises CorpusError for a blank one with another behind it: what stands beside it would be another's.
    """
    check_no_table(file)
    lines = lines_of(file)
    for place, (number, _) in enumerate(lines, start=1):
        if number != place:
            raise CorpusError(
                f"{file}: line {place} is blank; expected one of the {what} in each line, for the first belongs to the "
                "first prompt and so on; write it, or take the line and its prompt out"
            )
    log.info("%s: %d %s, one per line", file, len(lines), what)
    return [line for _, line in lines]


def check_no_name(word: str) -> None:
    """Raise CorpusError for a word that is a prompt by mistake alone: an empty one, or the name of no file."""
    if not word.strip():
        raise CorpusError("an empty prompt came; expected a text, or a file of prompts; write one")
    if os.path.exists(word):  # False for a text too long for a name, where pathlib raises
        entry_kind = "a folder" if os.path.isdir(word) else "no plain file"
        raise CorpusError(
            f"{word}: is {entry_kind}; expected a file of prompts, or a text; name a file in it, or write the word "
            "itself into a file if it is meant"
        )
    ends = tuple(f".{kind}" for kind in ("txt", *TABLES, *UNREAD_KINDS))
    if not any(letter.isspace() for letter in word) and word.lower().endswith((*ends, *COMPRESSED)):
        raise CorpusError(f"{word}: no such file; expected a file of prompts, or a text; correct the path")


def jsonl_rows(file: Path) -> Iterator[tuple[str, Any]]:
    """The rows of a JSONL file with their places."""
    for number, line in lines_of(file):
        where = f"{file}, line {number}"
        yield where, parse_json(line, where, error=CorpusError, advice="expected one row per line; correct it")


def as_prompt(row: Any, number: str, where: str, chat: bool, system: str, source: Language) -> Prompt:
    """A text, or a row with a text or with messages, as a prompt."""
    fields = row if isinstance(row, dict) else {}
    tag = Language.parse(fields["language"]) if isinstance(fields.get("language"), str) else source
    content = row_content(row, fields, where)
    if chat:
        try:
            return Prompt.chat(number, tag, content, system=system or None)
        except ChatError as err:
            raise ChatError(f"{where}: {err}") from err
    if not isinstance(content, str):
        what = "a system prompt" if system_of(fields, where) else "messages"
        raise ChatError(f"{where}: {what} came; expected text to continue; add --chat to have it answered")
    check_unicode(content, where)
    return Prompt(number, tag, content)


def row_content(row: Any, fields: Mapping[str, Any], where: str) -> str | Messages:
    """What a row asks: its messages, its text, or its text after its system prompt."""
    refuse_keys(fields, ROW_KEYS, where)
    if isinstance(row, list) or "messages" in fields:
        return row
    text = row if isinstance(row, str) else next((fields[key] for key in TEXT_FIELDS if key in fields), None)
    if not isinstance(text, str):
        wrong = [f"{key} as {kind_name(fields[key])}" for key in TEXT_FIELDS if key in fields]
        received = ", ".join(wrong) or (f"fields {', '.join(fields)}" if fields else kind_name(row))
        raise CorpusError(
            f'{where}: {received} came; expected {{"prompt": "…"}} or {{"messages": […]}}, in a table a column prompt, '
            "text or question; correct it"
        )
    if not text.strip():
        raise CorpusError(f"{where}: an empty prompt came; expected a text; write one or remove the row")
    row_system = system_of(fields, where)
    return {"messages": [Message("user", text)], "system": row_system} if row_system else text


def chat_prompts(chat: bool, system: str, questions: str, same_text: bool) -> ChatPrompts | None:
    """How a study asks; raises ChatError for what needs --chat and came without it."""
    if not chat and (system or questions):
        raise ChatError(f"{'--system' if system else '--questions'} came without --chat; expected both; add --chat")
    return ask_as_chat(system=system or None, questions=questions or None, same_text=same_text) if chat else None


def open_steering(path: Path, strength: float, unit: Literal["raw", "unit", "relative"]) -> SteeringRecipe | Delta:
    """A Delta folder as it is, or what `open_recipe` makes of a SteeringRecipe or Direction."""
    if not format_of(path).startswith("babelscope.Delta/"):
        return open_recipe(path, strength, unit)
    delta = Delta.load(path)
    if "steering" in delta.parameters:
        log.warning(
            "%s was trained with a shift of the stream, which does not act here; its recipes are in %s",
            path,
            path / "shift",
        )
    return delta
