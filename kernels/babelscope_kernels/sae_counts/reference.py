"""The definition of right: encode everything, then count."""

import torch
from torch import Tensor

from babelscope_kernels.sae_counts.fired import SaeCounts, one_hot, width_of


def sae_counts_reference(
    hidden: Tensor, w_enc: Tensor, b_enc: Tensor, threshold: Tensor | float, languages: Tensor, n_languages: int
) -> SaeCounts:
    """z = hidden @ w_enc + b_enc, fires where z > threshold; all three outputs."""
    wide = width_of(hidden)
    z = hidden.to(wide) @ w_enc.to(wide) + b_enc.to(wide)
    fires = z > torch.as_tensor(threshold, device=z.device).to(wide)
    hot = one_hot(languages, n_languages, torch.float64)
    return SaeCounts((hot @ fires.double()).long(), hot @ torch.where(fires, z, 0.0).double(), fires.sum(1))


def sae_topk_counts_reference(
    hidden: Tensor, w_enc: Tensor, b_enc: Tensor, k: int, languages: Tensor, n_languages: int
) -> SaeCounts:
    """The k largest z of each token fire, if they are above 0."""
    wide = width_of(hidden)
    z = hidden.to(wide) @ w_enc.to(wide) + b_enc.to(wide)
    best = z.topk(min(k, z.shape[1]), 1)
    kept = torch.zeros_like(z).scatter_(1, best.indices, best.values.clamp_min(0.0))
    hot = one_hot(languages, n_languages, torch.float64)
    return SaeCounts((hot @ (kept > 0).double()).long(), hot @ kept.double(), (kept > 0).sum(1))
