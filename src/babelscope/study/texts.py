"""What the text of a study must have."""

from babelscope.artifacts import Observation
from babelscope.controls.shards import FEWEST_SHARDS
from babelscope.corpus import Corpus, shard_of
from babelscope.errors import CorpusError, MeasurementError

SHARDS = 32
"""Document shards of the observation."""
FEWEST_READ = 16
"""Shards that the tokens read of a language must lie in: of fewer, one of a hundred half-splits may hold none."""


def check_shards(train: Corpus) -> None:
    """Raise CorpusError where a language has too few documents to be resampled by shards: known before the work."""
    filled = {tag: len({shard_of(document.id, SHARDS) for document in documents}) for tag, documents in train.items()}
    few = [f"{tag} {len(train[tag])} in {count}" for tag, count in filled.items() if count < FEWEST_SHARDS]
    if few:
        raise CorpusError(
            f"{train.name}: too few documents to observe, {', '.join(few)} of {SHARDS} shards; expected documents in "
            f"{FEWEST_SHARDS} or more; add some, or leave the language out"
        )


def check_observed(observation: Observation) -> None:
    """Raise MeasurementError where the tokens that were read are of too few documents: known before a set is chosen."""
    filled = (observation.shard_tokens > 0).sum(dim=0).tolist()
    few = [f"{tag} {count}" for tag, count in zip(observation.languages, filled, strict=True) if count < FEWEST_READ]
    if few:
        raise MeasurementError(
            f"the tokens observed are of too few documents, {', '.join(few)} of {SHARDS} shards hold text; expected "
            f"{FEWEST_READ} or more; give more --tokens-per-language"
        )
