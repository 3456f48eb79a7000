"""Held out means held out: train, valid and test of a text, dealt out by document where it has no splits of its own."""

import hashlib
import logging
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

from babelscope.corpus.documents import (
    SAMPLED,
    Corpus,
    Document,
    LineNumber,
    TextSource,
    content_hashes,
    content_of,
    tenth_of,
)
from babelscope.errors import CorpusError
from babelscope.languages import Language

log = logging.getLogger(__name__)
SPLITS = ("train", "valid", "test")
"""To observe and train on, to choose on, and to score once; each may repeat nothing of those before it."""
WHOLE = "all"
"""Asked for by name: all of a text without splits."""
TENTHS = {"train": range(3, 10), "valid": range(1), "test": range(1, 3)}
"""Tenths by which documents are dealt out."""
FEWEST_DEALT = 20
"""A language with fewer documents is not dealt out: all of it is train, and nothing of it is held out."""
COPIES = 0.1
"""A share of repeated documents that is said: resampling takes documents for independent."""
SAME = 0.5
"""A text of which such a part of the sampled documents is known is no other text; single lines may repeat in any."""
HELD_OUT_ADVICE = "give folders train, valid and test, or ask for the whole text (--split all, or --same-text)"


def deal_out(corpus: Corpus, split: str) -> Corpus:
    """One split of a text without splits: seven tenths of the documents are train, one valid, two test.

    The hash of a document's id decides, so the splits are the same in every process, for any choice of languages, and
    for parallel sentences in every language. A document of valid or test whose text is in an earlier split too is left
    out, in all languages where the text is parallel, and the log says how many. A language of fewer than 20 documents
    is train alone.
    Raises CorpusError for a language of which nothing is left in valid or test.
    """
    return deal_texts(corpus, corpus.name, split)


class Dealing(NamedTuple):
    """One split of one language's documents."""

    documents: tuple[Document, ...]
    repeats: set[str]
    """Ids of those whose text is in an earlier split too."""
    total: int
    """Documents of all splits."""
    ids: bytes | None
    """Hash of all ids in order; None where some are line numbers."""


def deal_texts(texts: Mapping[Language, Iterable[Document]], name: str, split: str) -> Corpus:
    """As `deal_out`, of documents that are read one after the other: those of other splits are never all in memory."""
    dealings = {tag: deal_documents(documents, split) for tag, documents in texts.items()}
    parallel = None not in (ids := {dealing.ids for dealing in dealings.values()}) and len(ids) == 1
    dropped = set().union(*(dealing.repeats for dealing in dealings.values())) if parallel else set()
    split_documents = {
        tag: tuple(document for document in documents if document.id not in (dropped or repeats))
        for tag, (documents, repeats, _, _) in dealings.items()
    }
    short = [f"{tag} ({dealings[tag].total} documents)" for tag, documents in split_documents.items() if not documents]
    if short:
        raise CorpusError(
            f"{name}: no document is left for {split} of {', '.join(short)}, where the text is dealt out by "
            f"document; expected {FEWEST_DEALT} or more per language, one per line; add some, or {HELD_OUT_ADVICE}"
        )
    left_out: dict[str, int] = {
        tag: n for tag, documents in split_documents.items() if (n := len(dealings[tag].documents) - len(documents))
    }
    say_dealt(name, split, {tag: (len(split_documents[tag]), dealings[tag].total) for tag in split_documents}, left_out)
    description = f"{name}, all of it" if split == WHOLE else f"{name}, {split} by document"
    return Corpus(split_documents, description, TextSource(name, split, split != WHOLE, left_out))


def deal_documents(documents: Iterable[Document], split: str) -> Dealing:
    """A split's documents by the hash of their ids; of a short text all are train."""
    before = {tenth for name in SPLITS[: SPLITS.index(split)] for tenth in TENTHS[name]} if split in SPLITS else set()
    first: list[Document] = []
    split_documents: list[Document] = []
    earlier_texts: set[bytes] = set()
    ids, count, numbered = hashlib.blake2b(digest_size=16), 0, False
    for count, document in enumerate(documents, start=1):
        if count < FEWEST_DEALT:
            first.append(document)
        ids.update(f"{len(document.id)} {document.id}".encode())
        numbered = numbered or isinstance(document.id, LineNumber)
        tenth = tenth_of(document.id)
        if split == WHOLE or tenth in TENTHS[split]:
            split_documents.append(document)
        elif tenth in before:
            earlier_texts.add(digest_of(document))
    if count < FEWEST_DEALT:
        split_documents, earlier_texts = first if split in ("train", WHOLE) else [], set()
    return Dealing(
        tuple(split_documents), repeated(split_documents, earlier_texts), count, None if numbered else ids.digest()
    )


def repeated(documents: Collection[Document], digests: Collection[bytes]) -> set[str]:
    """Ids of the documents whose text is known."""
    return {document.id for document in documents if digest_of(document) in digests} if digests else set()


def say_dealt(name: str, split: str, counts: Mapping[Language, tuple[int, int]], left_out: Mapping[Any, int]) -> None:
    """One line on what was dealt, so that nobody is surprised by the number of documents: kept, and of how many."""
    if split == WHOLE:
        return
    counts_text = ", ".join(f"{tag} {n_kept} of {count}" for tag, (n_kept, count) in counts.items())
    undivided = [tag for tag, (_, count) in counts.items() if count < FEWEST_DEALT]
    more = f"; too short to be dealt out, so nothing of it is held out: {', '.join(undivided)}" if undivided else ""
    left_out_text = f"; left out, their text is in an earlier split: {listed(left_out)}" if left_out else ""
    log.warning("%s: has no splits; %s is dealt out by document: %s%s%s", name, split, counts_text, more, left_out_text)


def say_repeated(corpus: str, split: str, repeats: Mapping[Any, int]) -> None:
    """One line where a split that a person made repeats an earlier one."""
    if repeats:
        log.warning(
            "%s: documents of %s that are in an earlier split too: %s; they are not held out; remove them there",
            corpus,
            split,
            listed(repeats),
        )


def say_copies(corpus: str, texts: Mapping[Language, Collection[Document]]) -> None:
    """One line where a tenth or more of a language's documents repeat another one of the same split."""
    copies = {tag: (len(documents) - len(contents(documents)), len(documents)) for tag, documents in texts.items()}
    many = [f"{tag} {count} of {total}" for tag, (count, total) in copies.items() if count >= COPIES * total]
    if many:
        log.warning(
            "%s: documents that repeat another one of the same text: %s; intervals count each as new text and come out "
            "too narrow; remove the repeats",
            corpus,
            ", ".join(many),
        )


def listed(counts: Mapping[Any, int]) -> str:
    """Counts by language as words."""
    return ", ".join(f"{tag} {count}" for tag, count in counts.items())


def split_documents(corpus: Corpus) -> dict[str, Corpus]:
    """All three splits of a text without splits; see `deal_out`. Raises CorpusError for a language that has not all."""
    return {split: deal_out(corpus, split) for split in SPLITS}


def check_apart(texts: Mapping[str, Corpus], *, name: str, same_text: bool = False) -> None:
    """Raise CorpusError where two splits of a language are the same text, unless `same_text` asks for that.

    texts: by what they are for, such as "valid" and "test".
    """
    if same_text:
        return
    pairs = [
        f"{tag} {first} and {second}"
        for first, second in combinations(texts, 2)
        for tag in texts[first]
        if tag in texts[second] and contents(texts[first][tag]) == contents(texts[second][tag])
    ]
    if pairs:
        raise CorpusError(
            f"{name}: the same text came for {', '.join(pairs)}; what is chosen on a text is not scored on it; "
            "expected other text for each; divide it, or ask for it by same_text (--same-text, if the command has it), "
            "and the result says so"
        )


def contents(documents: Iterable[Document]) -> set[bytes]:
    """The different texts of some documents, each as its hash: texts themselves would be in memory twice."""
    return {digest_of(document) for document in documents}


def digest_of(document: Document) -> bytes:
    """blake2b of 16 bytes of what makes two documents the same text."""
    return hashlib.blake2b(content_of(document).encode(), digest_size=16).digest()


def check_unseen(texts: Corpus, chosen_on: Mapping[str, Any] | None, *, what: str, same_text: bool = False) -> None:
    """Raise CorpusError where text to score on is what something was chosen on, unless `same_text` asks for that.

    chosen_on: `facts` of the text that it was chosen on; None where that is not known. The same text is recognised
    under another name, with other ids and in another order, by the hashes of a sample of its documents (`shared_part`).
    what: what was chosen, such as "these neurons".
    """
    if chosen_on is None or same_text:
        return
    source = texts.source
    parts = (chosen_on.get("split"), None if source is None else source.split)
    one_corpus = source is not None and chosen_on.get("corpus") == source.corpus
    overlap = parts[0] == parts[1] or WHOLE in parts
    samples: Mapping[str, Sequence[str]] = chosen_on.get("sample", {})  # of older versions: none
    shared = {tag: shared_part(documents, samples[tag]) for tag, documents in texts.items() if tag in samples}
    if chosen_on["hash"] == texts.hash or (one_corpus and overlap) or any(part >= SAME for part in shared.values()):
        raise CorpusError(
            f"{texts.name}: is the text on which {what} were chosen ({chosen_on['name']}); expected held-out text; "
            "take another split, or ask for it by same_text (--same-text), which the result then says"
        )


def shared_part(documents: Collection[Document], sample: Sequence[str]) -> float:
    """Estimated overlap of some documents with those of which `sample` has the least hashes: |A ∩ B| / min(|A|, |B|).

    A full sample decides for every hash up to its last, a shorter one for all. NaN where fewer than three documents of
    a longer text can be compared.
    Source: bottom-k sketches, Cohen and Kaplan 2007, doi:10.1145/1281100.1281133.
    """
    hashes = content_hashes(documents)
    within = [name for name in hashes if len(sample) < SAMPLED or name <= sample[-1]]
    smaller = min(len(within), len(sample))
    enough = smaller >= (3 if len(sample) == SAMPLED else 1)
    return len({*within} & {*sample}) / smaller if enough else math.nan
