"""Files of labelled text: which languages and splits a folder has, and the documents of one file."""

import os
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from babelscope.corpus.conversations import parse_conversation
from babelscope.corpus.documents import Document, LineNumber, clean_text, id_of
from babelscope.corpus.file_lines import COMPRESSED, text_lines
from babelscope.corpus.messages import ROW_KEYS, Counted, kind_name, refuse_keys
from babelscope.corpus.splits import SPLITS
from babelscope.errors import ChatError, CorpusError, LanguageError
from babelscope.files.strict_json import parse_json
from babelscope.languages import Language, parse_languages

ENDINGS = ("txt", "jsonl")
"""Of files that are read, before the ending of a packed one."""
FIELDS = ("text", "prompt", "answer")
ROW_FORM = '{"text": "…"} or {"prompt": "…", "answer": "…"}'
ROW_ADVICE = f"expected {ROW_FORM}; correct the line"


def split_of(file: Path) -> str:
    """The split in a file's name, `<tag>.<split>.txt`; empty where it names none."""
    parts = file.name.split(".")
    return parts[1] if parts[1] in SPLITS else ""


def find_files(
    folder: Path, split: str, languages: Iterable[str] | None = None, *, root: Path | None = None
) -> dict[Language, Path]:
    """Text files by language.

    root: the corpus that the folder is a part of.
    Raises LanguageError for a name that is no tag where no languages were asked for, CorpusError where two files claim
    one tag, and where what has a text file's name is a folder, or a link to a place outside the corpus.
    """
    root = root or folder
    tags = None if languages is None else parse_languages(languages)
    file_of_tag: dict[Language, Path] = {}
    divided: dict[Language, Path] = {}
    for file in sorted(folder.iterdir()):
        parts = file.name.split(".")
        if f".{parts[-1]}" in COMPRESSED:
            parts.pop()
        if len(parts) not in (2, 3) or parts[-1] not in ENDINGS:
            continue
        if len(parts) == 3 and parts[1] not in SPLITS:
            continue
        try:
            tag = Language.parse(parts[0])
        except LanguageError as err:
            if tags is not None:
                continue
            raise LanguageError(f"{file}: {err}, move the file away, or name the languages") from err
        if tags is not None and tag not in tags:
            continue
        if len(parts) == 3:
            divided[tag] = file
        if len(parts) == 3 and parts[1] != split:
            continue
        if tag in file_of_tag:
            raise CorpusError(
                f"{folder}: {file_of_tag[tag].name} and {file.name} are both {tag!r}; expected one; remove one"
            )
        check_plain(file, root)
        file_of_tag[tag] = file
    for tag in file_of_tag.keys() & divided.keys():
        if not split_of(file_of_tag[tag]):
            names = f"{file_of_tag[tag].name} and {divided[tag].name}"
            raise CorpusError(f"{folder}: {names} are both {tag!r}; expected files of splits, or one; remove one")
    return file_of_tag


def unread_names(folder: Path, languages: Iterable[str] | None = None) -> list[str]:
    """Entries of a corpus folder that begin with a language's tag and are no text file of it, in order.

    Such are `fi.csv`, `fi.dev.txt`, `FI.TXT` and a folder `fi`. languages: of these alone; None means any.
    """
    tags = None if languages is None else parse_languages(languages)
    names: list[str] = []
    for entry in sorted(folder.iterdir()):
        stem, *endings = entry.name.split(".")
        if endings and f".{endings[-1]}" in COMPRESSED:
            endings.pop()
        of_split = len(endings) == 1 or (len(endings) == 2 and endings[0] in SPLITS)
        if of_split and endings[-1] in ENDINGS:
            continue
        try:
            tag = Language.parse(stem)
        except LanguageError:
            continue
        if tags is None or tag in tags:
            names.append(f"{entry.name}/" if entry.is_dir() else entry.name)
    return names


def check_plain(file: Path, root: Path) -> None:
    """Raise CorpusError unless an entry of a folder is a file that lies in it, or in the hub's cache as it does."""
    target, folder = (Path(os.path.realpath(path)) for path in (file, root))  # of a link to itself too
    cache = next((above.parent / "blobs" for above in folder.parents if above.name == "snapshots"), folder)
    if not target.is_relative_to(folder) and not target.is_relative_to(cache):
        raise CorpusError(
            f"{file}: is a link to {target}, outside the corpus; expected a file in the folder; copy the text "
            "there, or remove the link"
        )
    if not file.is_file():
        entry_kind = "is a folder" if file.is_dir() else "is no plain file" if file.exists() else "is a link to nothing"
        raise CorpusError(f"{file}: {entry_kind}; expected a text file of that name; rename or remove it")


def read_documents(path: Path, conversation: Counted | None = None) -> tuple[Document, ...]:
    """All documents of one file; with `conversation` the file's rows are conversations."""
    return tuple(each_document(path, conversation))


def each_document(path: Path, conversation: Counted | None = None) -> Iterator[Document]:
    """The documents of one file, one after the other: a file's errors may come after some of them."""
    parse = parse_row if ".jsonl" in path.name else parse_line
    if conversation is not None:
        if parse is parse_line:
            raise ChatError(
                f"{path}: lines of text came; expected conversations, a row of messages each, in a .jsonl file"
            )
        parse = partial(parse_conversation, counted=conversation)
    empty = True
    for number, line in text_lines(path):
        if line.strip() and (document := parse(line, number - 1, path)).text.strip():
            empty = False
            yield document
    if empty:
        raise CorpusError(f"{path}: is empty; expected one document a line; fill it or leave the language out")


def parse_line(line: str, number: int, path: Path) -> Document:
    """A line of a text file."""
    return Document(LineNumber(number), clean_text(line))


def parse_row(line: str, number: int, path: Path) -> Document:
    """A row of a jsonl file; raises CorpusError if it is none."""
    row = parse_json(line, f"{path}, line {number + 1}", error=CorpusError, advice=ROW_ADVICE)
    first = row[0] if isinstance(row, list) and row else row
    if isinstance(first, dict) and ("messages" in row or (first is not row and "role" in first)):
        raise CorpusError(
            row_error(path, number, "messages of a conversation") + ", or say --conversation (whose words count)"
        )
    document = row_document(row, number, f"{path}, line {number + 1}")
    if document is None:
        received = unread_row(row) or ("a list; a line holds one row" if isinstance(row, list) else kind_name(row))
        raise CorpusError(row_error(path, number, received))
    return document


def unread_row(row: Any) -> str:
    """What keeps a row from being a document: a field that is null or no text, or else its fields; empty for no row."""
    if not isinstance(row, Mapping):
        return ""
    wrong = [f"{key} is {kind_name(row[key])}" for key in FIELDS if key in row and not isinstance(row[key], str)]
    return ", ".join(wrong) or f"fields {', '.join(map(str, row)) or 'none'}"


def row_document(row: Any, number: int, where: str) -> Document | None:
    """A row with its text, or with a prompt and its answer, of which the answer counts; None where it is neither.

    Raises ChatError for a prompt with a system prompt or tools beside it, which only messages can have.
    """
    if not isinstance(row, Mapping):
        return None
    text, prompt, answer = (row.get(field) for field in FIELDS)
    if isinstance(text, str):
        return Document(id_of(row, number), unicodedata.normalize("NFC", text))
    if text is None and isinstance(prompt, str) and isinstance(answer, str):
        refuse_keys(row, ("system", *ROW_KEYS), where)
        prompt, answer = (unicodedata.normalize("NFC", part) for part in (prompt, answer))
        return Document(id_of(row, number), answer, None, prompt)
    return None


def row_error(path: Path, number: int, received: str) -> str:
    """The one line for a row of a jsonl file that is none."""
    return f"{path}, line {number + 1}: no readable row ({received}); {ROW_ADVICE}"
