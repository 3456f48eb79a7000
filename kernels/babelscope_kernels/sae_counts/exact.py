"""Exact TopK: the k largest of each token, kept while chunks of features go by."""

import torch
from torch import Tensor

from babelscope_kernels.errors import KernelError
from babelscope_kernels.sae_counts.chunked import TOKENS
from babelscope_kernels.sae_counts.fired import SaeCounts, check_sae, width_of

FEATURES = 4096
"""Columns of one product: wide, since each chunk costs a selection."""


@torch.no_grad()
def sae_topk_counts(
    hidden: Tensor, w_enc: Tensor, b_enc: Tensor, *, k: int, languages: Tensor, n_languages: int
) -> SaeCounts:
    """Counts, sums and L0 of a TopK autoencoder: of each token the k largest z fire, if they are above 0.

    Arguments as in `sae_counts`. Which of two equal values at the k-th place fires is not defined.
    For a stored inference threshold (BatchTopK) use `sae_counts`. Plain torch on every device.
    Raises KernelError for shapes, dtypes or language numbers that do not fit, or k below 1.
    """
    check_sae("sae_topk_counts", hidden, w_enc, b_enc, languages, n_languages)
    if k < 1:
        raise KernelError(f"sae_topk_counts: k {k}, expected 1 or more")
    wide, n_feature = width_of(hidden), w_enc.shape[1]
    counts = torch.zeros(n_languages * n_feature, dtype=torch.int64, device=hidden.device)
    sums = torch.zeros_like(counts, dtype=torch.float64)
    active = torch.zeros(len(hidden), dtype=torch.int64, device=hidden.device)
    for first in range(0, len(hidden), TOKENS):
        tokens = slice(first, first + TOKENS)
        values, features = _best(hidden[tokens].to(wide), w_enc, b_enc.to(wide), k)
        fires = values > 0
        active[tokens] = fires.sum(1)
        counted = fires & (languages[tokens] >= 0)[:, None]
        places = (languages[tokens].long()[:, None] * n_feature + features)[counted]
        counts += torch.bincount(places, minlength=len(counts))
        sums += torch.bincount(places, weights=values[counted].double(), minlength=len(counts))
    shape = (n_languages, n_feature)
    return SaeCounts(counts.view(shape), sums.view(shape), active)


def _best(rows: Tensor, w_enc: Tensor, bias: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest z of each row, and their features."""
    values = rows.new_empty((len(rows), 0))
    features = torch.empty((len(rows), 0), dtype=torch.int64, device=rows.device)
    for start in range(0, w_enc.shape[1], FEATURES):
        part = slice(start, start + FEATURES)
        z = torch.mm(rows, w_enc[:, part].to(rows.dtype)).add_(bias[part])
        found = z.topk(min(k, z.shape[1]), 1)
        values = torch.cat([values, found.values], 1)
        features = torch.cat([features, found.indices + start], 1)
        kept = values.topk(min(k, values.shape[1]), 1)
        values, features = kept.values, features.gather(1, kept.indices)
    return values, features
