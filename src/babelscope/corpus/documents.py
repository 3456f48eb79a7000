"""Documents by language."""

import hashlib
import json
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from itertools import compress, filterfalse
from types import MappingProxyType
from typing import Any, NamedTuple

from babelscope.corpus.messages import Conversation
from babelscope.errors import CorpusError, refuse_one_text
from babelscope.languages import Language, parse_languages


class LineNumber(str):
    """An id that is only a place in a file or list: equal ones in two languages do not mean the same sentence."""

    __slots__ = ()


class Document(NamedTuple):
    """One text with its identity; equal ids in two languages mean parallel text, unless they are line numbers."""

    id: str
    """The row's own `id`; a `LineNumber` where it has none and nobody said that the text is line-parallel."""
    text: str
    """NFC, without line ends; of a conversation the words that count, of a prompt and its answer the answer."""
    conversation: Conversation | None = None
    """Messages for the model's chat template, where it is a conversation."""
    prompt: str | None = None
    """Words that are read before the text, exactly as they stand, and never counted; None where there are none."""


SAMPLED = 64
"""Documents a language whose hashes a result keeps, so that text on which it was chosen is known again."""
Texts = Mapping[str, Iterable[str | Document]] | Mapping[Language, Iterable[str | Document]]
"""Language tag → texts, as a person would hand them over."""


class TextSource(NamedTuple):
    """Where text was read from, and which part of it: what a result says about its text."""

    corpus: str
    """As it was asked for."""
    split: str
    """train, valid, test, or all."""
    dealt: bool = False
    """Whether the split was dealt out by document, because the corpus has none of its own."""
    repeated: Mapping[str, int] = MappingProxyType({})
    """By language, documents whose text is in an earlier split too: left out where dealt, else only counted."""


def content_of(document: Document) -> str:
    """What makes two documents the same text: the words, however they are spaced, or all messages of a conversation."""
    if document.conversation is not None:
        return json.dumps(document.conversation, ensure_ascii=False)
    if document.prompt is not None:
        return json.dumps([document.prompt, document.text], ensure_ascii=False)
    return " ".join(document.text.split())


def content_hashes(documents: Iterable[Document]) -> list[str]:
    """The hash of each different text, in rising order; ids, order and the corpus's name are not in it."""
    texts = {content_of(document) for document in documents}
    return sorted(hashlib.blake2b(text.encode(), digest_size=8).hexdigest() for text in texts)


def sample_of(documents: Iterable[Document]) -> list[str]:
    """The least hashes of some documents' texts: the same documents are drawn from every corpus that has them."""
    return content_hashes(documents)[:SAMPLED]


class Corpus(Mapping[Language, tuple[Document, ...]]):
    """Documents by language, in order."""

    def __init__(
        self, documents: Mapping[Language, tuple[Document, ...]], name: str, source: TextSource | None = None
    ) -> None:
        """source: where the text was read from; None for text that was handed over."""
        self._documents = dict(documents)
        self.name, self.source = name, source

    def __getitem__(self, tag: str) -> tuple[Document, ...]:
        return self._documents[Language(tag)]

    def __iter__(self) -> Iterator[Language]:
        return iter(self._documents)

    def __len__(self) -> int:
        return len(self._documents)

    def __repr__(self) -> str:
        """Its name, and how many documents each language has."""
        counts = ", ".join(f"{tag} {len(documents)}" for tag, documents in self._documents.items())
        return f"<Corpus {self.name!r}; documents: {counts}>"

    @property
    def hash(self) -> str:
        """blake2b over tags, ids and texts, with prompts, or messages and what counts: equal corpora, equal hashes."""
        digest = hashlib.blake2b(digest_size=8)
        for tag, documents in self._documents.items():
            for document in documents:
                digest.update(f"{tag}\t{document.id}\t{document.text}\n".encode())
                if document.conversation is not None:
                    digest.update(json.dumps(document.conversation).encode())
                if document.prompt is not None:
                    digest.update(json.dumps(["prompt", document.prompt]).encode())
        return digest.hexdigest()

    @property
    def parallel(self) -> bool:
        """Whether every language has the same ids in the same order, and they are more than line numbers.

        That files have equally many lines says nothing: ids in rows do, or whoever reads text with `parallel=True`.
        """
        all_ids = [[document.id for document in documents] for documents in self._documents.values()]
        if any(isinstance(number, LineNumber) for ids in all_ids for number in ids):
            return False
        return len({tuple(ids) for ids in all_ids}) == 1

    def declared_parallel(self) -> "Corpus":
        """The same corpus with document i of every language the same content.

        Raises CorpusError where languages differ in their documents' numbers or ids.
        """
        first, *later_documents = self._documents
        ids = [str(document.id) for document in self._documents[first]]
        for tag in later_documents:
            other_ids = [str(document.id) for document in self._documents[tag]]
            if other_ids != ids:
                place = next(
                    (i for i, pair in enumerate(zip(ids, other_ids, strict=False)) if pair[0] != pair[1]), None
                )
                where = "" if place is None else f", and differ at {ids[place]!r} and {other_ids[place]!r}"
                raise CorpusError(
                    f"{self.name}: declared as parallel, but {first} has {len(ids)} documents and {tag} "
                    f"{len(other_ids)}{where}; expected parallel text, the same lines or ids in each; align it"
                )
        return self.derived(
            {tag: tuple(d._replace(id=str(d.id)) for d in texts) for tag, texts in self._documents.items()}, self.name
        )

    def derived(self, documents: Mapping[Language, tuple[Document, ...]], name: str) -> "Corpus":
        """Other documents that were made from these, with the same source."""
        return Corpus(documents, name, self.source)

    def facts(self) -> dict[str, Any]:
        """What a result says about its text: name, split, whether it was dealt out, documents and repeats, hash."""
        return {
            "name": self.name,
            "hash": self.hash,
            "sample": {tag: sample_of(documents) for tag, documents in self._documents.items()},
            "parallel": self.parallel,
            "documents": {tag: len(documents) for tag, documents in self._documents.items()},
            **({} if self.source is None else self.source._asdict() | {"repeated": dict(self.source.repeated)}),
        }

    def only(self, languages: Iterable[str]) -> "Corpus":
        """The same corpus with these languages, in this order."""
        tags = parse_languages(languages)
        missing = [tag for tag in tags if tag not in self._documents]
        if missing:
            raise CorpusError(f"{self.name}: no text for {', '.join(missing)}; expected one of {', '.join(self)}")
        return self.derived({tag: self._documents[tag] for tag in tags}, self.name)

    def head(self, documents: int) -> "Corpus":
        """The first so many documents of each language."""
        return self.derived({tag: texts[:documents] for tag, texts in self._documents.items()}, self.name)


def as_corpus(texts: Texts, *, parallel: bool = False) -> Corpus:
    """A Corpus from a plain mapping; ids of plain texts are their numbers.

    Blank texts are no documents, as in files, and their numbers are not given to others. Of parallel text those
    are left out that are blank in all languages: what is blank in some is for its reader to refuse or leave out.
    parallel: text i is the same content in every language; without it, only documents with ids of their own are taken
    for parallel. Raises CorpusError for a language without text, and for parallel text of unlike length.
    """
    if isinstance(texts, Corpus):
        return texts.declared_parallel() if parallel else texts
    if not isinstance(texts, Mapping):
        raise CorpusError(
            f"texts: a {type(texts).__name__} came; expected texts by language, such as {{'en': ['…'], 'fi': ['…']}}; "
            "load_corpus reads a folder"
        )
    tags = parse_languages(texts)
    documents = {tag: handed_over(lines, tag) for tag, lines in zip(tags, texts.values(), strict=True)}
    corpus = Corpus(documents, "texts handed over")
    if parallel:
        corpus = corpus.declared_parallel()
        kept = [not all(map(is_blank, row)) for row in zip(*corpus.values(), strict=True)]
        return corpus.derived({tag: tuple(compress(corpus[tag], kept)) for tag in tags}, corpus.name)
    return corpus.derived({tag: tuple(filterfalse(is_blank, documents[tag])) for tag in tags}, corpus.name)


def handed_over(lines: Iterable[str | Document], tag: Language) -> tuple[Document, ...]:
    """The texts of one language as documents, blank ones too; raises CorpusError where there is no other."""
    refuse_one_text(lines, f"texts of {tag}", CorpusError)
    texts = tuple(lines) if isinstance(lines, Iterable) else None
    if texts is None or not all(isinstance(line, str | Document) for line in texts):
        raise CorpusError(f"texts of {tag}: {lines!r:.60} came; expected a list of texts; correct it")
    if not texts and isinstance(lines, Iterator):
        raise CorpusError(
            f"texts of {tag}: a {type(lines).__name__} came that gives none, or gave them before; expected a list, "
            "where texts are read more than once; make one of it"
        )
    documents = tuple(
        line if isinstance(line, Document) else Document(LineNumber(number), clean_text(line))
        for number, line in enumerate(texts)
    )
    if all(map(is_blank, documents)):
        raise CorpusError(f"language {tag!r} has no text; expected at least one line that is not blank; add some")
    return documents


def is_blank(document: Document) -> bool:
    """Whether a document has no word that counts, as far as it says so itself."""
    return document.conversation is None and not document.text.strip()


def as_parallel(texts: Texts) -> Corpus:
    """Text for a function that asks for parallel text: a plain mapping handed to it is taken at its word.

    A Corpus is parallel where its ids, or whoever read it, say so; the caller asks its `parallel`. Raises CorpusError
    for a mapping whose languages have unlike numbers of texts.
    """
    return as_corpus(texts, parallel=not isinstance(texts, Corpus))


def id_of(row: Any, number: int) -> str:
    """A row's own `id`, or its number where it has none."""
    row_id = row.get("id") if isinstance(row, Mapping) else None
    return LineNumber(number) if row_id is None else str(row_id)


def clean_text(line: str) -> str:
    """NFC, and no line end."""
    return unicodedata.normalize("NFC", line.rstrip("\r\n"))


def tenth_of(document_id: str) -> int:
    """Which tenth of a text a document is in, where the text is dealt out; no shard is told by it.

    By the hash of `shard_of` a split of tenths would leave 3 of 10, 20 or 30 shards of its train text empty.
    """
    digest = hashlib.blake2b(document_id.encode(), digest_size=8, person=b"split").digest()
    return int.from_bytes(digest, "big") % 10


def shard_of(document_id: str, shards: int) -> int:
    """blake2b(document id) mod shards: the same on every machine, and for every language of parallel text."""
    return int.from_bytes(hashlib.blake2b(document_id.encode(), digest_size=8).digest(), "big") % shards
