"""Tokens, documents and what was cut off, by language: sums that no site is needed for."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from babelscope.axes import Int64, Tensor
from babelscope.corpus import TokenDocument, shard_of


@dataclass(eq=False)
class Tally:
    """Sums that belong to the text, not to a site."""

    tokens: Int64[Tensor, " language"]
    shard_tokens: Int64[Tensor, "shard language"]
    documents: Int64[Tensor, " language"]
    truncated: Int64[Tensor, " language"]
    controls: Int64[Tensor, " language"]
    """Control tokens that are spelt in the text and stayed text."""

    @classmethod
    def zeros(cls, languages: int, shards: int) -> "Tally":
        """Nothing read yet."""
        rows = (torch.zeros(languages, dtype=torch.int64) for _ in range(4))
        tokens, documents, truncated, controls = rows
        return cls(tokens, torch.zeros(shards, languages, dtype=torch.int64), documents, truncated, controls)

    def add(self, documents: Sequence[TokenDocument]) -> None:
        """Count documents that were read."""
        for document in documents:
            k, count = document.language, document.n_counted
            self.tokens[k] += count
            if len(self.shard_tokens):
                self.shard_tokens[shard_of(document.id, len(self.shard_tokens)), k] += count
            self.documents[k] += 1
            self.truncated[k] += document.truncated
            self.controls[k] += document.controls
