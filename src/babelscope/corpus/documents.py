"""Documents by language."""

import hashlib
import json
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from babelscope.corpus.messages import Conversation
from babelscope.errors import CorpusError
from babelscope.languages import Language, parse_languages


class Document(NamedTuple):
    """One text with its identity; equal ids in two languages mean parallel text."""

    id: str
    """Line or row number, or the row's own `id`."""
    text: str
    """NFC, without line ends; of a conversation the words that count."""
    conversation: Conversation | None = None
    """Messages for the model's chat template, where it is a conversation."""


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
        """blake2b over tags, ids and texts, or messages and what of them counts: equal corpora have equal hashes."""
        digest = hashlib.blake2b(digest_size=8)
        for tag, documents in self._documents.items():
            for document in documents:
                digest.update(f"{tag}\t{document.id}\t{document.text}\n".encode())
                if document.conversation is not None:
                    digest.update(json.dumps(document.conversation).encode())
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


def shard_of(document_id: str, shards: int) -> int:
    """blake2b(document id) mod shards: the same on every machine, and for every language of parallel text."""
    return int.from_bytes(hashlib.blake2b(document_id.encode(), digest_size=8).digest(), "big") % shards
