"""What one batch adds to the sums of an autoencoder's features, never holding tokens × features."""

from collections.abc import Iterator
from typing import NamedTuple

import torch

from babelscope.artifacts.sae import LoadedSAE
from babelscope.axes import Float, Float32, Float64, Int64, Tensor

BLOCK = 2**21
"""Values of tokens × features held at a time: 8 MB in float32, which stays in a cache."""


class FeatureAddend(NamedTuple):
    """What one batch of one language adds."""

    active: Float32[Tensor, "document feature"]
    """Tokens of each document on which the feature fired; whole numbers, exact below 2²⁴ tokens per document."""
    sum: Float64[Tensor, "document feature"]
    """Sum of values over the tokens of each document."""
    sumsq: Float64[Tensor, " feature"]
    norm: Float64[Tensor, ""]
    """Sum over tokens of the length of the activation."""


def blocks(sae: LoadedSAE, rows: Float[Tensor, "row hidden"]) -> Iterator[tuple[slice, slice, Tensor]]:
    """Feature values in parts: (rows, features, values), each part of at most `BLOCK` values where that is possible.

    By blocks of features, so that a part of the encoder is read once for all rows; by blocks of rows under "topk",
    whose ranking needs all features of a row.
    """
    all_rows = slice(0, len(rows))
    if sae.activation == "topk":
        step = max(1, BLOCK // sae.n_features)
        for start in range(0, len(rows), step):
            part = slice(start, min(len(rows), start + step))
            yield part, slice(0, sae.n_features), sae.encode(rows[part])
        return
    scaled = sae.scaled(rows)
    step = max(1, BLOCK // max(1, len(rows)))
    for start in range(0, sae.n_features, step):
        part = slice(start, min(sae.n_features, start + step))
        pre = torch.addmm(sae.b_enc[part], scaled, sae.w_enc[:, part])
        yield all_rows, part, torch.where(pre > sae.threshold[part], pre, 0)


def feature_addend(
    sae: LoadedSAE, rows: Float[Tensor, "row hidden"], document: Int64[Tensor, " row"], n_documents: int
) -> FeatureAddend:
    """Sums over some tokens: firing, values and squares by feature, the first two by document.

    document: which of the batch's documents each row belongs to.
    A value of 0 is no firing: thresholds are 0 or more, and firing is strictly above them.
    """
    # `sae_counts` with the document as label gives firings and sums, but no sum of squares, which is what matched
    # features are drawn by: the encoder would run twice.
    shape = (n_documents, sae.n_features)
    active = torch.zeros(shape, device=rows.device)
    total = torch.zeros(shape, dtype=torch.float64, device=rows.device)
    sumsq = torch.zeros(sae.n_features, dtype=torch.float64, device=rows.device)
    for part_rows, part, value in blocks(sae, rows):
        active[:, part].index_add_(0, document[part_rows], (value > 0).to(active.dtype))
        wide = value.double()
        total[:, part].index_add_(0, document[part_rows], wide)
        sumsq[part] += wide.square_().sum(dim=0)
    return FeatureAddend(active, total, sumsq, rows.double().norm(dim=1).sum())
