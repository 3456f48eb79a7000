"""Sums over tokens kept by document shard and language: means, bootstrap, and swapped labels of any such quantity."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerBase

from babelscope.axes import Float64, Tensor
from babelscope.corpus import Batch, Corpus, batch_documents, limit_tokens, pad_of, shard_of, tokenize_documents
from babelscope.errors import LanguageError, MeasurementError
from babelscope.languages import Language

FEWEST_SHARDS = 20
"""Fewer shards than this give no interval."""
BATCH_TOKENS = 4096
"""Padded tokens a batch."""


def stream_batches(
    tokenizer: PreTrainedTokenizerBase, corpus: Corpus, *, tokens_per_language: int | None, max_length: int
) -> Iterator[Batch]:
    """Batches of one language after the other, up to so many counted tokens each."""
    pad = pad_of(tokenizer)
    for k, documents in enumerate(corpus.values()):
        tokens = tokenize_documents(tokenizer, documents, k, max_length=max_length)
        kept = limit_tokens(tokens, tokens_per_language)
        yield from batch_documents(kept, batch_tokens=BATCH_TOKENS, pad=pad)


@dataclass(frozen=True, eq=False)
class ShardSums:
    """Sums over tokens; resampled by weighing shards, because tokens of one document depend on each other."""

    languages: tuple[Language, ...]
    parallel: bool
    """Whether a shard holds the same sentences in every language."""
    tokens: Float64[Tensor, "shard language"]
    total: Float64[Tensor, "shard language unit"]

    @classmethod
    def zeros(cls, corpus: Corpus, shards: int, units: int) -> "ShardSums":
        """Nothing added yet."""
        tokens = torch.zeros(shards, len(corpus), dtype=torch.float64)
        total = torch.zeros(shards, len(corpus), units, dtype=torch.float64)
        return cls(tuple(corpus), corpus.parallel, tokens, total)

    def add_(
        self, batch: Batch, rows: Float64[Tensor, "batch unit"], first: int = 0, *, tokens: Tensor | None = None
    ) -> None:
        """Add each document's sums to the units from `first` on, and its tokens where they are given."""
        shard = torch.tensor([shard_of(document.id, len(self.tokens)) for document in batch.documents])
        language = torch.tensor([document.language for document in batch.documents])
        self.total[:, :, first : first + rows.shape[1]].index_put_((shard, language), rows.cpu(), accumulate=True)
        if tokens is not None:
            self.tokens.index_put_((shard, language), tokens.double().cpu(), accumulate=True)

    def column(self, language: str) -> int:
        """Place of a language; raises LanguageError if absent."""
        tag = Language.parse(language)
        if tag not in self.languages:
            raise LanguageError(f"language {tag!r} was not read; expected one of {', '.join(self.languages)}; add it")
        return self.languages.index(tag)

    def mean(self) -> Float64[Tensor, "language unit"]:
        """Mean over tokens."""
        return self.total.sum(dim=0) / self.tokens.sum(dim=0)[:, None]

    def bootstrap(self, draws: int, seed: int) -> Float64[Tensor, "draw language unit"]:
        """Means over shards drawn with replacement; one draw serves all languages where the text is parallel.

        Raises MeasurementError for fewer than 20 shards with text.
        """
        self.check()
        generator, n = torch.Generator().manual_seed(seed), len(self.tokens)
        columns = 1 if self.parallel else len(self.languages)
        picked = torch.randint(n, (draws, columns, n), generator=generator)
        weight = torch.zeros(draws, columns, n, dtype=torch.float64).scatter_add_(
            2, picked, torch.ones(picked.shape, dtype=torch.float64)
        )
        means = []
        for k in range(len(self.languages)):
            own = weight[:, 0 if self.parallel else k]
            means.append((own @ self.total[:, k]) / (own @ self.tokens[:, k])[:, None])
        return torch.stack(means, dim=1)

    def swapped(self, one: int, other: int, draws: int, seed: int) -> Float64[Tensor, "draw 2 unit"]:
        """Means of two languages whose labels are swapped at random by shard: what they are if labels mean nothing.

        Parallel text: inside a shard, so that the content is held fixed; else the shards of both are dealt out anew.
        """
        n, generator = len(self.tokens), torch.Generator().manual_seed(seed)
        total = torch.cat([self.total[:, one], self.total[:, other]])
        tokens = torch.cat([self.tokens[:, one], self.tokens[:, other]])
        if self.parallel:
            half = torch.rand(draws, n, generator=generator) < 0.5
            first = torch.cat([half, ~half], dim=1)
        else:
            first = torch.stack([torch.randperm(2 * n, generator=generator) < n for _ in range(draws)])
        parts = [mask.double() for mask in (first, ~first)]
        return torch.stack([(part @ total) / (part @ tokens)[:, None] for part in parts], dim=1)

    def permuted(self, draws: int, seed: int) -> Iterator[Float64[Tensor, "language unit"]]:
        """Means under language labels permuted by shard, of all languages together."""
        n, k, generator = *self.tokens.shape, torch.Generator().manual_seed(seed)
        for _ in range(draws):
            if self.parallel:
                order = torch.stack([torch.randperm(k, generator=generator) for _ in range(n)])
                row = torch.arange(n)[:, None].expand(n, k)
            else:
                flat = torch.randperm(n * k, generator=generator).reshape(n, k)
                row, order = flat // k, flat % k
            yield self.total[row, order].sum(dim=0) / self.tokens[row, order].sum(dim=0)[:, None]

    def check(self) -> None:
        """Raise MeasurementError where too few shards hold text of a language."""
        filled = (self.tokens > 0).sum(dim=0)
        fewest = int(filled.argmin())
        if int(filled[fewest]) < FEWEST_SHARDS:
            raise MeasurementError(
                f"{self.languages[fewest]} has text in {int(filled[fewest])} shards; expected at least "
                f"{FEWEST_SHARDS} for an interval; give more documents, or more shards"
            )


def counted_sum(value: Float64[Tensor, "batch token unit"], batch: Batch) -> Float64[Tensor, "batch unit"]:
    """Sum over each document's counted tokens."""
    return (value * batch.counted.to(value.device)[..., None]).sum(dim=1)


def check_english(languages: Sequence[Language], against: str) -> None:
    """Raise LanguageError where there is nothing to compare with."""
    if Language.parse(against) not in languages or len(languages) < 2:
        raise LanguageError(
            f"{', '.join(languages)} came; expected {against} and at least one other language; add the missing text"
        )
