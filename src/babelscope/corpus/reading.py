"""Labelled text from folders, compressed files and data sets; the one place that reads them."""

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

from babelscope.corpus.conversations import as_conversation, parse_conversation
from babelscope.corpus.documents import Corpus, Document, clean_text
from babelscope.corpus.messages import Counted
from babelscope.errors import ChatError, CorpusError, LanguageError
from babelscope.languages import Language, parse_languages
from babelscope.reference import CORPUS as REFERENCE_CORPUS

OPENERS: dict[str, Callable[[Path], Any]] = {
    "": lambda path: path.open("rb"),
    ".gz": lambda path: gzip.open(path, "rb"),
    ".bz2": lambda path: bz2.open(path, "rb"),
    ".xz": lambda path: lzma.open(path, "rb"),
    ".zst": lambda path: io.BufferedReader(zstandard.open(path, "rb")),  # pyright: ignore[reportArgumentType]
}
TEXT_FIELD = "text"


def load_corpus(
    name: str | Path,
    languages: Iterable[str] | None = None,
    *,
    split: str = "train",
    conversation: Counted | None = None,
) -> Corpus:
    """Read labelled text: a folder of `<tag>.txt` or `<tag>.jsonl` (also .gz .bz2 .xz .zst), "reference", or a hub id.

    languages: which, in which order; None means every file of the folder.
    split: "train", "valid" or "test". `<tag>.train.txt.xz` is read for split "train" where the files say so; a folder
    with one sub-folder a split is entered; a data set on the hub has its configurations named by the tags.
    Blank lines are skipped, their numbers are not given to others. jsonl rows need `text` and may have `id`.
    conversation: rows are conversations, `{"messages": [{"role": …, "content": …}, …]}` or that list alone, for the
    model's chat template; "all", "user" or "answer" says whose words count, and whose training takes the loss on.
    A text file whose name is no tag is refused, and passed over where languages are named.
    Raises CorpusError for a missing, empty, unreadable or double file, LanguageError for an unknown tag, ChatError
    for a row that is no conversation where they were asked for.
    """
    path = REFERENCE_CORPUS if name == "reference" else Path(name)
    if not path.is_dir():
        if path.exists() or path.is_absolute() or str(name).startswith("."):
            raise CorpusError(f"corpus {str(name)!r} is no folder; expected a folder with <tag>.txt files, or a hub id")
        return load_dataset_corpus(str(name), languages, split, conversation)
    folder = path / split if (path / split).is_dir() else path
    files = find_files(folder, split, languages)
    wanted = parse_languages(languages) if languages is not None else tuple(sorted(files))
    if not wanted:
        raise CorpusError(
            f"{folder}: no <tag>.txt or <tag>.jsonl in it for split {split!r}; expected one file a language; "
            "check the path and the split"
        )
    missing = [tag for tag in wanted if tag not in files]
    if missing:
        raise CorpusError(
            f"{folder}: no file for {', '.join(missing)}, split {split!r}; expected {missing[0]}.txt or "
            f"{missing[0]}.jsonl (there are files for {', '.join(files) or 'no language'}); add it or leave "
            "the language out"
        )
    return Corpus({tag: read_documents(files[tag], conversation) for tag in wanted}, name_of(name, conversation))


def find_files(folder: Path, split: str, languages: Iterable[str] | None = None) -> dict[Language, Path]:
    """Text files by language; raises CorpusError where two claim one tag, or one has no tag and none were asked for."""
    found: dict[Language, Path] = {}
    for file in sorted(folder.iterdir()):
        parts = file.name.split(".")
        if parts[-1] in ("gz", "bz2", "xz", "zst"):
            parts.pop()
        if not file.is_file() or len(parts) not in (2, 3) or parts[-1] not in ("txt", "jsonl"):
            continue
        if len(parts) == 3 and parts[1] != split:
            continue
        try:
            tag = Language.parse(parts[0])
        except LanguageError as err:
            if languages is not None:
                continue
            raise LanguageError(f"{file}: {err}, move the file away, or name the languages") from err
        if tag in found:
            raise CorpusError(f"{folder}: {found[tag].name} and {file.name} are both {tag!r}; expected one; remove one")
        found[tag] = file
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
        for number, line in enumerate(text.split("\n"))
        if line.strip() and (document := parse(line, number, path)).text.strip()
    )
    if not documents:
        raise CorpusError(f"{path}: is empty; expected one document a line; fill it or leave the language out")
    return documents


def parse_line(line: str, number: int, path: Path) -> Document:
    """A line of a text file."""
    return Document(str(number), clean_text(line))


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
    return Document(str(row.get("id", number)), unicodedata.normalize("NFC", text))


def row_error(path: Path, number: int, found: str) -> str:
    """The one line for a row of a jsonl file that is none."""
    return f'{path}, line {number + 1}: no readable row ({found}); expected {{"{TEXT_FIELD}": "…"}}; correct the line'


def load_dataset_corpus(
    name: str, languages: Iterable[str] | None, split: str, conversation: Counted | None = None
) -> Corpus:
    """A data set with one configuration a language, by the `datasets` library; only what was named is fetched."""
    from datasets import load_dataset
    from datasets.exceptions import DatasetNotFoundError

    if languages is None:
        raise CorpusError(
            f"corpus {name!r}: no folder here, and no languages came for a data set of the hub; expected one of the "
            "two; check the path, or name the languages"
        )
    documents = {}
    for tag in parse_languages(languages):
        try:
            rows: Any = load_dataset(name, tag, split=split, streaming=False)
        except (DatasetNotFoundError, OSError, ValueError) as err:
            reason = str(err).strip().splitlines()[0]
            raise CorpusError(f"corpus {name!r}, {tag}: no folder here and no data set ({reason}); check it") from err
        documents[tag] = tuple(
            Document(str(row.get("id", number)), unicodedata.normalize("NFC", row[TEXT_FIELD]))
            if conversation is None
            else as_conversation(row, number, f"{name}, {tag}", conversation)
            for number, row in enumerate(rows)
        )
    return Corpus(documents, name_of(name, conversation))


def name_of(name: str | Path, conversation: Counted | None) -> str:
    """What a corpus is called in results: its name, and whose words of its conversations count."""
    return str(name) if conversation is None else f"{name}, conversations, counted: {conversation}"
