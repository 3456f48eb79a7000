"""Tokens of documents in right-padded batches."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch

from babelscope.axes import Bool, Int, Int64, Tensor
from babelscope.corpus.tokens import TokenDocument
from babelscope.errors import CorpusError

PASS_SHARE = 32
"""A pass takes by itself about as long as this part of a full batch's tokens, whatever it reads: 128 of 4,096 on a CPU.

Losses of 700 tokens took least time so with Gemma 3 270M and with the bundled model; on a GPU it was not measured."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Right-padded documents of one or more languages."""

    input_ids: Int[Tensor, "batch token"]
    attention_mask: Int[Tensor, "batch token"]
    counted: Bool[Tensor, "batch token"]
    documents: tuple[TokenDocument, ...]

    @property
    def places(self) -> list[int]:
        """Place of each document in the list that `numbered` was given."""
        return [int(document.id) for document in self.documents]

    def halves(self) -> tuple["Batch", "Batch"]:
        """Two batches of half the documents; raises CorpusError at one document."""
        middle = len(self.documents) // 2
        if middle == 0:
            raise CorpusError(
                f"document {self.documents[0].id!r} of {len(self.documents[0].tokens)} tokens does not fit in memory; "
                "expected room for one document; lower max_length"
            )
        pad = int(self.input_ids[0, -1]) if not self.attention_mask[0, -1] else 0
        return make_batch(self.documents[:middle], pad), make_batch(self.documents[middle:], pad)


def make_batch(documents: Sequence[TokenDocument], pad: int) -> Batch:
    """Pad documents on the right to the longest of them."""
    width = max(len(document.tokens) for document in documents)
    ids = torch.full((len(documents), width), pad, dtype=torch.int64)
    mask = torch.zeros(len(documents), width, dtype=torch.int64)
    counted = torch.zeros(len(documents), width, dtype=torch.bool)
    for row, document in enumerate(documents):
        length = len(document.tokens)
        ids[row, :length] = torch.tensor(document.tokens)
        mask[row, :length] = 1
        counted[row, :length] = torch.tensor(document.counted)
    return Batch(ids, mask, counted, tuple(documents))


def numbered(documents: Sequence[TokenDocument]) -> list[TokenDocument]:
    """The same documents with their places as ids, by which what is measured in batches finds its row."""
    return [replace(document, id=str(place)) for place, document in enumerate(documents)]


def pad_rows(
    rows: Sequence[Sequence[int]], pad: int, *, side: Literal["left", "right"] = "left"
) -> tuple[Int64[Tensor, "row token"], Int64[Tensor, "row token"]]:
    """Ids and mask of rows of unlike length, padded to the longest; on the left, as `generate` needs them."""
    width = max(len(row) for row in rows)
    ids = torch.full((len(rows), width), pad, dtype=torch.int64)
    mask = torch.zeros(len(rows), width, dtype=torch.int64)
    for number, row in enumerate(rows):
        place = slice(width - len(row), width) if side == "left" else slice(0, len(row))
        ids[number, place], mask[number, place] = torch.tensor(row, dtype=torch.int64), 1
    return ids, mask


def batch_documents(
    documents: Sequence[TokenDocument], *, batch_tokens: int, pad: int, batch_size: int | None = None
) -> list[Batch]:
    """Batches of at most `batch_tokens` padded tokens, documents of like length together; at least one per batch.

    Where a batch ends is chosen so that all of them together take least: see `least_padding`.
    batch_size: documents per batch, in place of a number of tokens.
    A document without a token (an empty text, and no BOS) is in none of them.
    """
    order = sorted(
        (index for index, document in enumerate(documents) if document.tokens),
        key=lambda index: (-len(documents[index].tokens), index),
    )
    sizes = (
        least_padding([len(documents[index].tokens) for index in order], batch_tokens)
        if batch_size is None
        else [batch_size] * -(-len(order) // batch_size)
    )
    batches, start = [], 0
    for size in sizes:
        batches.append(make_batch([documents[index] for index in order[start : start + size]], pad))
        start += size
    return batches


def least_padding(lengths: Sequence[int], batch_tokens: int) -> list[int]:
    """Documents of each batch, in their order, whose padded tokens and passes together take least.

    lengths: tokens of the documents, the longest first; a batch is padded to its first. Each batch costs its padded
    tokens and a `PASS_SHARE` of `batch_tokens` more. By dynamic programming from the shortest document on.
    """
    cost, sizes = np.zeros(len(lengths) + 1, dtype=np.int64), np.zeros(len(lengths), dtype=np.int64)
    for first in reversed(range(len(lengths))):
        most = min(len(lengths) - first, max(1, batch_tokens // lengths[first]))
        total = lengths[first] * np.arange(1, most + 1) + cost[first + 1 : first + 1 + most]
        sizes[first] = most - int(total[::-1].argmin())  # of equal ones the largest batch
        cost[first] = total[sizes[first] - 1] + batch_tokens // PASS_SHARE
    chosen, start = [], 0
    while start < len(lengths):
        chosen.append(int(sizes[start]))
        start += chosen[-1]
    return chosen
