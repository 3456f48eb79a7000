"""What the text of a study must have."""

from babelscope.controls.shards import FEWEST_SHARDS
from babelscope.corpus import Corpus, shard_of
from babelscope.errors import CorpusError

SHARDS = 32
"""Document shards of the observation."""


def check_shards(train: Corpus) -> None:
    """Raise CorpusError where a language has too few documents to be resampled by shards: known before the work."""
    filled = {tag: len({shard_of(document.id, SHARDS) for document in documents}) for tag, documents in train.items()}
    few = [f"{tag} {len(train[tag])} in {count}" for tag, count in filled.items() if count < FEWEST_SHARDS]
    if few:
        raise CorpusError(
            f"{train.name}: too few documents to observe, {', '.join(few)} of {SHARDS} shards; expected documents in "
            f"{FEWEST_SHARDS} or more; add some, or leave the language out"
        )
