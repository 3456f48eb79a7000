"""Text with language labels, and its way into token batches.

The one place that reads text files and data sets. A document is one line of a text file or one row of a
jsonl file or data set; it gets BOS once where the tokenizer has one, and never shares attention with another.
"""

import bz2
import gzip
import hashlib
import io
import json
import lzma
import random
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
import zstandard
from anyascii import anyascii
from transformers import PreTrainedTokenizerBase

from babelscope.axes import Bool, Int, Tensor
from babelscope.errors import CorpusError, LanguageError
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


class Document(NamedTuple):
    """One text with its identity; equal ids in two languages mean parallel text."""

    id: str
    """Line or row number, or the row's own `id`."""
    text: str
    """NFC, without line ends."""


Texts = Mapping[str, Sequence[str | Document]] | Mapping[Language, Sequence[str | Document]]
"""Language tag → texts, as a person would hand them over."""


class Corpus(Mapping[Language, tuple[Document, ...]]):
    """Documents by language, in order."""

    def __init__(self, documents: Mapping[Language, tuple[Document, ...]], name: str):
        self._documents = dict(documents)
        self.name = name

    def __getitem__(self, tag: str) -> tuple[Document, ...]:
        return self._documents[Language(tag)]

    def __iter__(self) -> Iterator[Language]:
        return iter(self._documents)

    def __len__(self) -> int:
        return len(self._documents)

    @property
    def hash(self) -> str:
        """blake2b over tags, ids and texts: equal corpora have equal hashes."""
        digest = hashlib.blake2b(digest_size=8)
        for tag, documents in self._documents.items():
            for document in documents:
                digest.update(f"{tag}\t{document.id}\t{document.text}\n".encode())
        return digest.hexdigest()

    @property
    def parallel(self) -> bool:
        """Whether every language has the same ids in the same order."""
        ids = {tuple(document.id for document in documents) for documents in self._documents.values()}
        return len(ids) == 1

    def only(self, languages: Iterable[str]) -> "Corpus":
        """The same corpus with these languages, in this order."""
        wanted = parse_languages(languages)
        missing = [tag for tag in wanted if tag not in self._documents]
        if missing:
            raise CorpusError(f"{self.name}: no text for {', '.join(missing)}; expected one of {', '.join(self)}")
        return Corpus({tag: self._documents[tag] for tag in wanted}, self.name)

    def head(self, documents: int) -> "Corpus":
        """The first so many documents of each language."""
        return Corpus({tag: texts[:documents] for tag, texts in self._documents.items()}, self.name)


def as_corpus(texts: Texts) -> Corpus:
    """A Corpus from a plain mapping; ids are line numbers. Raises CorpusError for a language without text."""
    if isinstance(texts, Corpus):
        return texts
    parsed = dict(zip(parse_languages(texts), texts.values(), strict=True))
    documents = {
        tag: tuple(
            line if isinstance(line, Document) else Document(str(number), clean_text(line))
            for number, line in enumerate(lines)
        )
        for tag, lines in parsed.items()
    }
    for tag, found in documents.items():
        if not any(document.text for document in found):
            raise CorpusError(f"language {tag!r} has no text; expected at least one line that is not blank; add some")
    return Corpus(documents, "texts handed over")


def clean_text(line: str) -> str:
    """NFC, and no line end."""
    return unicodedata.normalize("NFC", line.rstrip("\r\n"))


def load_corpus(name: str | Path, languages: Iterable[str] | None = None, *, split: str = "train") -> Corpus:
    """Read labelled text: a folder of `<tag>.txt` or `<tag>.jsonl` (also .gz .bz2 .xz .zst), "reference", or a hub id.

    languages: which, in which order; None means every file of the folder.
    split: "train", "valid" or "test". `<tag>.train.txt.xz` is read for split "train" where the files say so; a folder
    with one sub-folder a split is entered; a data set on the hub has its configurations named by the tags.
    Blank lines are skipped, their numbers are not given to others. jsonl rows need `text` and may have `id`.
    A text file whose name is no tag is refused, and passed over where languages are named.
    Raises CorpusError for a missing, empty, unreadable or double file, LanguageError for an unknown tag.
    """
    path = REFERENCE_CORPUS if name == "reference" else Path(name)
    if not path.is_dir():
        if path.exists() or path.is_absolute() or str(name).startswith("."):
            raise CorpusError(f"corpus {str(name)!r} is no folder; expected a folder with <tag>.txt files, or a hub id")
        return load_dataset_corpus(str(name), languages, split)
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
            f"{folder}: no file for {', '.join(missing)}; expected {missing[0]}.txt or {missing[0]}.jsonl "
            f"(there are files for {', '.join(files) or 'no language'}); add it or leave the language out"
        )
    return Corpus({tag: read_documents(files[tag]) for tag in wanted}, str(name))


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


def read_documents(path: Path) -> tuple[Document, ...]:
    """All documents of one file."""
    suffix = path.suffix if path.suffix in OPENERS else ""
    try:
        with OPENERS[suffix](path) as stream:
            text = stream.read().decode("utf-8-sig")
    except (OSError, EOFError, lzma.LZMAError, zstandard.ZstdError) as err:
        raise CorpusError(f"{path}: unreadable ({err}); expected a whole text file; fetch it again") from err
    except UnicodeDecodeError as err:
        raise CorpusError(f"{path}: is not UTF-8 at byte {err.start}; expected UTF-8 text; convert it") from err
    parse = parse_row if ".jsonl" in path.name else parse_line
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


def load_dataset_corpus(name: str, languages: Iterable[str] | None, split: str) -> Corpus:
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
            for number, row in enumerate(rows)
        )
    return Corpus(documents, name)


ROMANISABLE = frozenset({"Cyrl", "Arab", "Deva", "Hans", "Hant", "Grek", "Geor", "Armn"})
"""Scripts that anyascii writes in Latin letters letter by letter; it reads kanji as Mandarin, so Jpan is not here."""


def romanise(corpus: Corpus) -> Corpus:
    """The same documents in ASCII letters, for the languages where that is defined; others are left out.

    Arabic loses its short vowels, which its script does not write. Raises CorpusError if no language is left.
    """
    documents = {
        tag: tuple(Document(document.id, anyascii(document.text)) for document in found)
        for tag, found in corpus.items()
        if tag.script in ROMANISABLE
    }
    if not documents:
        raise CorpusError(
            f"{corpus.name}: no language in a script that can be romanised; expected one of {ROMANISABLE}"
        )
    return Corpus(documents, f"{corpus.name}, romanised")


def shuffle_words(corpus: Corpus, *, seed: int = 0) -> Corpus:
    """The same documents with their words in random order; characters where a text has no spaces."""
    rng = random.Random(seed)

    def shuffled(text: str) -> str:
        parts, joint = (text.split(), " ") if " " in text else (list(text), "")
        return joint.join(rng.sample(parts, len(parts)))

    documents = {tag: tuple(Document(d.id, shuffled(d.text)) for d in found) for tag, found in corpus.items()}
    return Corpus(documents, f"{corpus.name}, words shuffled")


def shard_of(document_id: str, shards: int) -> int:
    """blake2b(document id) mod shards: the same on every machine, and for every language of parallel text."""
    return int.from_bytes(hashlib.blake2b(document_id.encode(), digest_size=8).digest(), "big") % shards


@dataclass(frozen=True)
class TokenDocument:
    """A document as tokens, with what of it counts."""

    language: int
    """Place in the corpus's order of languages."""
    id: str
    tokens: tuple[int, ...]
    """BOS first where the tokenizer has one."""
    counted: tuple[bool, ...]
    """False for BOS and other special tokens, and for tokens past the language's budget."""
    truncated: int
    """Tokens dropped past `max_length`."""
    n_bytes: int
    """UTF-8 bytes of the whole text."""

    @property
    def n_counted(self) -> int:
        """Tokens that count."""
        return sum(self.counted)


def bos_of(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Id of the token that begins a text; None where the tokenizer has none."""
    found = tokenizer.bos_token_id
    return None if found is None else int(found)  # pyright: ignore[reportArgumentType]


def pad_of(tokenizer: PreTrainedTokenizerBase) -> int:
    """Id that fills rows; 0 where the tokenizer names none: a filled place is never read."""
    return int(tokenizer.pad_token_id or 0)  # pyright: ignore[reportArgumentType]


def tokenize_documents(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[Document], language: int, *, max_length: int
) -> list[TokenDocument]:
    """Tokens of each document: BOS once, special tokens never counted, nothing added at the end."""
    bos, special = bos_of(tokenizer), set(tokenizer.all_special_ids)
    encoded = tokenizer([text.text for text in texts], add_special_tokens=False)["input_ids"]
    documents = []
    for text, ids in zip(texts, encoded, strict=True):  # pyright: ignore[reportArgumentType]
        whole: list[int] = [*([] if bos is None else [bos]), *ids]  # pyright: ignore[reportAssignmentType]
        kept = whole[:max_length]
        counted = tuple(token not in special for token in kept)
        documents.append(
            TokenDocument(language, text.id, tuple(kept), counted, len(whole) - len(kept), len(text.text.encode()))
        )
    return documents


def limit_tokens(documents: Sequence[TokenDocument], limit: int | None) -> list[TokenDocument]:
    """The first documents that hold exactly `limit` counted tokens, the last one cut; all where there are fewer."""
    kept, room = [], limit
    for document in documents:
        if room is not None and room <= 0:
            break
        if room is not None and document.n_counted > room:
            document = cut_document(document, room)
        if document.n_counted:
            kept.append(document)
        if room is not None:
            room -= document.n_counted
    return kept


def cut_document(document: TokenDocument, room: int) -> TokenDocument:
    """The shortest beginning of a document that holds `room` counted tokens."""
    seen = 0
    for end, counted in enumerate(document.counted, start=1):
        seen += counted
        if seen == room:
            return TokenDocument(
                document.language,
                document.id,
                document.tokens[:end],
                document.counted[:end],
                document.truncated,
                document.n_bytes,
            )
    return document


@dataclass(frozen=True, eq=False)
class Batch:
    """Right-padded documents of one or more languages."""

    input_ids: Int[Tensor, "batch token"]
    attention_mask: Int[Tensor, "batch token"]
    counted: Bool[Tensor, "batch token"]
    documents: tuple[TokenDocument, ...]

    def halves(self) -> tuple["Batch", "Batch"]:
        """Two batches of half the documents; raises CorpusError at one document."""
        middle = len(self.documents) // 2
        if middle == 0:
            raise CorpusError(
                f"document {self.documents[0].id!r} of {len(self.documents[0].tokens)} tokens does not fit in memory; "
                "expected room for one document; lower max_length"
            )
        pad = int(self.input_ids[0, -1]) if not self.attention_mask[0, -1] else 0
        return make_batch(self.documents[:middle], pad), make_batch(self.documents[middle:], pad)


def make_batch(documents: Sequence[TokenDocument], pad: int) -> Batch:
    """Pad documents on the right to the longest of them."""
    width = max(len(document.tokens) for document in documents)
    ids = torch.full((len(documents), width), pad, dtype=torch.int64)
    mask = torch.zeros(len(documents), width, dtype=torch.int64)
    counted = torch.zeros(len(documents), width, dtype=torch.bool)
    for row, document in enumerate(documents):
        length = len(document.tokens)
        ids[row, :length] = torch.tensor(document.tokens)
        mask[row, :length] = 1
        counted[row, :length] = torch.tensor(document.counted)
    return Batch(ids, mask, counted, tuple(documents))


def batch_documents(documents: Sequence[TokenDocument], *, batch_tokens: int, pad: int) -> list[Batch]:
    """Batches of at most `batch_tokens` padded tokens, documents of like length together; at least one a batch."""
    order = sorted(range(len(documents)), key=lambda index: (-len(documents[index].tokens), index))
    batches, start = [], 0
    while start < len(order):
        size = max(1, batch_tokens // len(documents[order[start]].tokens))
        batches.append(make_batch([documents[index] for index in order[start : start + size]], pad))
        start += size
    return batches
