"""Files of labelled text: which languages and splits a folder has, and the documents of one file."""

import bz2
import gzip
import io
import json
import lzma
import unicodedata
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import zstandard

from babelscope.corpus.conversations import parse_conversation
from babelscope.corpus.documents import Document, LineNumber, clean_text, id_of
from babelscope.corpus.messages import Counted
from babelscope.corpus.splits import SPLITS
from babelscope.errors import ChatError, CorpusError, LanguageError
from babelscope.languages import Language

OPENERS: dict[str, Callable[[Path], Any]] = {
    "": lambda path: path.open("rb"),
    ".gz": lambda path: gzip.open(path, "rb"),
    ".bz2": lambda path: bz2.open(path, "rb"),
    ".xz": lambda path: lzma.open(path, "rb"),
    ".zst": lambda path: io.BufferedReader(zstandard.open(path, "rb")),  # pyright: ignore[reportArgumentType]
}
TEXT_FIELD = "text"


def split_of(file: Path) -> str:
    """The split in a file's name, `<tag>.<split>.txt`; empty where it names none."""
    parts = file.name.split(".")
    return parts[1] if parts[1] in SPLITS else ""


def find_files(folder: Path, split: str, languages: Iterable[str] | None = None) -> dict[Language, Path]:
    """Text files by language; raises CorpusError where two claim one tag, or one has no tag and none were asked for."""
    found: dict[Language, Path] = {}
    divided: dict[Language, Path] = {}
    for file in sorted(folder.iterdir()):
        parts = file.name.split(".")
        if parts[-1] in ("gz", "bz2", "xz", "zst"):
            parts.pop()
        if not file.is_file() or len(parts) not in (2, 3) or parts[-1] not in ("txt", "jsonl"):
            continue
        if len(parts) == 3 and parts[1] not in SPLITS:
            continue
        try:
            tag = Language.parse(parts[0])
        except LanguageError as err:
            if languages is not None:
                continue
            raise LanguageError(f"{file}: {err}, move the file away, or name the languages") from err
        if len(parts) == 3:
            divided[tag] = file
        if len(parts) == 3 and parts[1] != split:
            continue
        if tag in found:
            raise CorpusError(f"{folder}: {found[tag].name} and {file.name} are both {tag!r}; expected one; remove one")
        found[tag] = file
    for tag in found.keys() & divided.keys():
        if not split_of(found[tag]):
            names = f"{found[tag].name} and {divided[tag].name}"
            raise CorpusError(f"{folder}: {names} are both {tag!r}; expected files of splits, or one; remove one")
    return found


def read_documents(path: Path, conversation: Counted | None = None) -> tuple[Document, ...]:
    """All documents of one file; with `conversation` the file's rows are conversations."""
    suffix = path.suffix if path.suffix in OPENERS else ""
    try:
        with OPENERS[suffix](path) as stream:
            text = stream.read().decode("utf-8-sig")
    except (OSError, EOFError, lzma.LZMAError, zstandard.ZstdError) as err:
        raise CorpusError(f"{path}: unreadable ({err}); expected a whole text file; fetch it again") from err
    except UnicodeDecodeError as err:
        raise CorpusError(f"{path}: is not UTF-8 at byte {err.start}; expected UTF-8 text; convert it") from err
    parse = parse_row if ".jsonl" in path.name else parse_line
    if conversation is not None:
        if parse is parse_line:
            raise ChatError(
                f"{path}: lines of text came; expected conversations, a row of messages each, in a .jsonl file"
            )
        parse = partial(parse_conversation, counted=conversation)
    documents = tuple(
        document
        for number, line in enumerate(split_lines(text))
        if line.strip() and (document := parse(line, number, path)).text.strip()
    )
    if not documents:
        raise CorpusError(f"{path}: is empty; expected one document a line; fill it or leave the language out")
    return documents


def split_lines(text: str) -> list[str]:
    """A file's lines, which end at \\n or \\r\\n and nowhere else: U+2028 and U+0085 may stand in a text.

    `str.splitlines` would cut at eight more characters, and lines that belong together would no longer stand together.
    """
    return [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")] if text else []


def parse_line(line: str, number: int, path: Path) -> Document:
    """A line of a text file."""
    return Document(LineNumber(number), clean_text(line))


def parse_row(line: str, number: int, path: Path) -> Document:
    """A row of a jsonl file; raises CorpusError if it is none."""
    try:
        row = json.loads(line)
    except ValueError as err:
        raise CorpusError(row_error(path, number, f"no JSON, {err}")) from err
    if isinstance(row, list) or (isinstance(row, dict) and "messages" in row):
        raise CorpusError(
            row_error(path, number, "messages of a conversation") + ", or say --conversation (whose words count)"
        )
    text = row.get(TEXT_FIELD) if isinstance(row, dict) else None
    if not isinstance(text, str):
        found = f"fields {', '.join(row)}" if isinstance(row, dict) else type(row).__name__
        raise CorpusError(row_error(path, number, found if text is None else f"{TEXT_FIELD} is {type(text).__name__}"))
    try:
        text.encode()
    except UnicodeEncodeError as err:
        raise CorpusError(row_error(path, number, f"half a surrogate pair at character {err.start}")) from err
    return Document(id_of(row, number), unicodedata.normalize("NFC", text))


def row_error(path: Path, number: int, found: str) -> str:
    """The one line for a row of a jsonl file that is none."""
    return f'{path}, line {number + 1}: no readable row ({found}); expected {{"{TEXT_FIELD}": "…"}}; correct the line'
