"""Torch: 1024 tokens × 512 features at a time, compared in place and counted by a small product."""

import torch
from torch import Tensor

from babelscope_kernels.sae_counts.fired import SaeCounts, one_hot, width_of

TOKENS = 1024
FEATURES = 512
"""Columns of one product. The sum over `hidden` runs in the order of the whole product, so that z and the counts are
equal bit for bit: a test holds this for sizes odd and even. Chunks of 128 and 256 did not keep it (333 × 33 → 777)."""


def count_by_chunks(
    hidden: Tensor,
    w_enc: Tensor,
    b_enc: Tensor,
    threshold: Tensor,
    languages: Tensor,
    n_languages: int,
    with_sums: bool,
    with_active: bool,
) -> SaeCounts:
    """Counts, and what else is asked for. threshold: [feature] or []. Every count of a chunk is exact: at most 1024."""
    wide, (n_token, n_feature) = width_of(hidden), (len(hidden), w_enc.shape[1])
    counts = torch.zeros((n_languages, n_feature), dtype=torch.int64, device=hidden.device)
    sums = torch.zeros_like(counts, dtype=torch.float64) if with_sums else None
    active = torch.zeros(n_token, dtype=torch.int64, device=hidden.device) if with_active else None
    hot = one_hot(languages, n_languages, wide)
    bias, limit = b_enc.to(wide), threshold.to(wide)
    for first in range(0, n_token, TOKENS):
        tokens = slice(first, min(first + TOKENS, n_token))
        rows, those = hidden[tokens].to(wide), hot[:, tokens]
        buffer = rows.new_empty(len(rows) * min(FEATURES, n_feature))
        for start in range(0, n_feature, FEATURES):
            part = slice(start, min(start + FEATURES, n_feature))
            z = buffer[: len(rows) * (part.stop - start)].view(len(rows), -1)
            torch.mm(rows, w_enc[:, part].to(wide), out=z)
            z.add_(bias[part])
            edge = limit[part] if limit.ndim else limit
            fires = z > edge if sums is not None else z.gt_(edge)
            if sums is not None:
                sums[:, part] += those.double() @ z.masked_fill_(~fires, 0.0).double()
                fires = fires.to(wide)
            counts[:, part] += (those @ fires).long()
            if active is not None:
                active[tokens] += fires.sum(1).long()
    return SaeCounts(counts, sums, active)
