"""Train, valid and test out of one text."""

from babelscope.corpus.documents import Corpus, Document, shard_of
from babelscope.errors import CorpusError

TENTHS = {"train": range(3, 10), "valid": range(1), "test": range(1, 3)}
"""Shards of ten by which documents are dealt out."""


def split_documents(corpus: Corpus) -> dict[str, Corpus]:
    """Seven tenths of the documents as train, one as valid and two as test, by the hash of the document's id.

    Parallel sentences have one id, so they fall into one split in every language. A document of valid or test whose
    text is in train too is left out there. Raises CorpusError for a language too short to have all three.
    """
    found = {
        split: {tag: tuple(d for d in texts if shard_of(d.id, 10) in tenths) for tag, texts in corpus.items()}
        for split, tenths in TENTHS.items()
    }
    for split in ("valid", "test"):
        found[split] = {tag: unseen(documents, found["train"][tag]) for tag, documents in found[split].items()}
    empty = [f"{tag} {split}" for split, by_tag in found.items() for tag, documents in by_tag.items() if not documents]
    if empty:
        raise CorpusError(
            f"{corpus.name}: no document is left for {', '.join(empty)} where the text is split by document; expected "
            "a few dozen a language, one a line; add some, or give folders train, valid and test"
        )
    return {split: Corpus(by_tag, f"{corpus.name}, {split} by document") for split, by_tag in found.items()}


def unseen(documents: tuple[Document, ...], train: tuple[Document, ...]) -> tuple[Document, ...]:
    """The documents whose text is not in the training split."""
    known = {document.text for document in train}
    return tuple(document for document in documents if document.text not in known)
