"""The definition of right: attention with the whole pattern in memory."""

import torch
from torch import Tensor

from babelscope_kernels.attention_stats.statistics import AttentionStats, Bounds, visible


def attention_stats_reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bounds: Bounds,
    *,
    gates: Tensor | None = None,
    means: Tensor | None = None,
    causal: bool = True,
    window: int | None = None,
    softcap: float | None = None,
    scale: float | None = None,
) -> AttentionStats:
    """Scores, softmax, product, and every statistic read from the pattern; in float32, or float64 if given float64."""
    wide = torch.float64 if q.dtype == torch.float64 else torch.float32
    group = q.shape[1] // k.shape[1]
    keys, values = (tensor.to(wide).repeat_interleave(group, 1) for tensor in (k, v))
    scores = q.to(wide) @ keys.mT * (q.shape[-1] ** -0.5 if scale is None else scale)
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    scores = scores.masked_fill(~visible(bounds, causal, window), float("-inf"))
    pattern = torch.softmax(scores, -1).nan_to_num(0.0)
    output = pattern @ values
    if gates is not None:
        gate = gates.to(wide).expand(q.shape[:2])[:, :, None, None]
        text = (bounds.ends > 0)[:, None, :, None]
        mean = torch.zeros((), dtype=wide) if means is None else means.to(wide)[None, :, None]
        output = torch.where(text, gate * output + (1 - gate) * mean.to(output.device), 0.0)
    fixed = pattern.detach()
    sink = bounds.starts.long().clamp(max=max(q.shape[2] - 1, 0))[:, None, :, None].expand(*q.shape[:3], 1)
    previous = torch.zeros_like(fixed[..., 0]) if q.shape[2] else fixed.new_zeros(q.shape[:3])
    previous[:, :, 1:] = fixed.diagonal(-1, -2, -1)
    return AttentionStats(
        output.to(q.dtype),
        torch.special.entr(fixed).sum(-1),
        fixed.gather(-1, sink)[..., 0],
        previous,
        torch.logsumexp(scores.detach(), -1),
    )
