"""Tokens, documents and what was cut off, by language: sums that no site is needed for."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from babelscope.axes import Int64, Tensor
from babelscope.corpus import Batch, shard_of
from babelscope.recording.watchers import ReadSite
from babelscope.sites import Site


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

    @property
    def hooks(self) -> Mapping[Site, ReadSite]:
        """None: these sums need no site."""
        return {}

    def add(self, batch: Batch, values: dict[Site, Any]) -> None:
        """Count documents that were read."""
        for document in batch.documents:
            k, count = document.language, document.n_counted
            self.tokens[k] += count
            if len(self.shard_tokens):
                self.shard_tokens[shard_of(document.id, len(self.shard_tokens)), k] += count
            self.documents[k] += 1
            self.truncated[k] += document.truncated
            self.controls[k] += document.controls

    def state(self) -> dict[str, Tensor]:
        """The totals by name."""
        return {f"tally/{name}": tensor for name, tensor in vars(self).items()}
