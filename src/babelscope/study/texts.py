"""The three splits of a corpus: to observe, to choose on, and to score once."""

from babelscope.corpus import Corpus, load_corpus, split_documents

SPLITS = ("train", "valid", "test")


def three_splits(name: str, languages: tuple[str, ...] | None) -> dict[str, Corpus]:
    """The corpus's own splits, or by document where it has none: what is chosen and scored is never what was observed.

    Raises CorpusError as `load_corpus` and `split_documents`.
    """
    texts = {split: load_corpus(name, languages, split=split) for split in SPLITS}
    return split_documents(texts["train"]) if len({corpus.hash for corpus in texts.values()}) == 1 else texts
