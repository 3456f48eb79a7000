"""Sums over tokens by document shard and language."""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from babelscope.axes import Float64, Tensor
from babelscope.controls import ShardSums
from babelscope.corpus import Batch, Corpus, shard_of
from babelscope.errors import LanguageError
from babelscope.languages import Language


class UnitSums(NamedTuple):
    """Sums of some quantity of every unit over the counted tokens."""

    tokens: Float64[Tensor, "*shard language"]
    total: Float64[Tensor, "*shard language unit"]

    def mean(self) -> Float64[Tensor, "language unit"]:
        """Mean over tokens, of a resample or the whole."""
        return self.total / self.tokens[:, None]


def zero_sums(corpus: Corpus, shards: int, units: int) -> ShardSums[UnitSums]:
    """Nothing added yet."""
    tokens = torch.zeros(shards, len(corpus), dtype=torch.float64)
    total = torch.zeros(shards, len(corpus), units, dtype=torch.float64)
    return ShardSums(tuple(corpus), corpus.parallel, UnitSums(tokens, total))


def add_rows(
    sums: ShardSums[UnitSums],
    batch: Batch,
    rows: Float64[Tensor, "batch unit"],
    first: int = 0,
    *,
    tokens: Tensor | None = None,
) -> None:
    """Add each document's sums to the units from `first` on, and its tokens where they are given."""
    shard = torch.tensor([shard_of(document.id, sums.n_shards) for document in batch.documents])
    language = torch.tensor([document.language for document in batch.documents])
    units = sums.by_shard.total[:, :, first : first + rows.shape[1]]
    units.index_put_((shard, language), rows.cpu(), accumulate=True)
    if tokens is not None:
        sums.by_shard.tokens.index_put_((shard, language), tokens.double().cpu(), accumulate=True)


def check_english(languages: Sequence[Language], against: str) -> None:
    """Raise LanguageError where there is nothing to compare with."""
    if Language.parse(against) not in languages or len(languages) < 2:
        raise LanguageError(
            f"{', '.join(languages)} came; expected {against} and at least one other language; add the missing text, "
            "or compare with another language (against)"
        )
