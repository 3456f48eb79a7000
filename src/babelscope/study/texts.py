"""The three splits of a corpus: to observe, to choose on, and to score once."""

from itertools import combinations

from babelscope.controls.shards import FEWEST_SHARDS
from babelscope.corpus import Corpus, load_corpus, shard_of, split_documents
from babelscope.errors import CorpusError

SPLITS = ("train", "valid", "test")
SHARDS = 32
"""Document shards of the observation."""


def three_splits(name: str, languages: tuple[str, ...] | None) -> dict[str, Corpus]:
    """The corpus's own splits, or by document where it has none: what is chosen and scored is never what was observed.

    Every split has the languages of the training split. Raises CorpusError as `load_corpus` and `split_documents`, and
    for text that is in two splits.
    """
    train = load_corpus(name, languages, split="train")
    texts = {"train": train, **{split: load_corpus(name, tuple(train), split=split) for split in SPLITS[1:]}}
    if len({corpus.hash for corpus in texts.values()}) == 1:
        return split_documents(train)
    pairs = [(a, b, tag) for a, b in combinations(SPLITS, 2) for tag in train if texts[a][tag] == texts[b][tag]]
    if pairs:
        found = ", ".join(f"{tag} {a} and {b}" for a, b, tag in pairs)
        raise CorpusError(
            f"{name}: the same text came for {found}; expected a file for each of train, valid and test, or one for "
            "all three in every language; divide it"
        )
    return texts


def check_shards(train: Corpus) -> None:
    """Raise CorpusError where a language has too few documents to be resampled by shards: known before the work."""
    filled = {tag: len({shard_of(document.id, SHARDS) for document in found}) for tag, found in train.items()}
    few = [f"{tag} {len(train[tag])} in {count}" for tag, count in filled.items() if count < FEWEST_SHARDS]
    if few:
        raise CorpusError(
            f"{train.name}: too few documents to observe, {', '.join(few)} of {SHARDS} shards; expected documents in "
            f"{FEWEST_SHARDS} or more; add some, or leave the language out"
        )
