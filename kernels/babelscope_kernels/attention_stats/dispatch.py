"""Attention with statistics: the public function."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from babelscope_kernels.attention_stats.blocked import attention_by_blocks, capped_output
from babelscope_kernels.attention_stats.statistics import AttentionStats, Bounds, bounds_of, visible
from babelscope_kernels.backend import Backend, choose
from babelscope_kernels.errors import KernelError
from babelscope_kernels.launching import operator


def attention_stats(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    gates: Tensor | None = None,
    means: Tensor | None = None,
    causal: bool = True,
    segments: Tensor | None = None,
    window: int | None = None,
    softcap: float | int | None = None,
    scale: float | int | None = None,
    backend: Backend = "auto",
) -> AttentionStats:
    """Attention with a gate on each head, and entropy, sink and previous-token mass of each row; no pattern is stored.

    p = softmax(scale · q kᵀ) over the keys that a row sees;  output = γ·(p @ v) + (1 − γ)·μ;  H = −Σ p ln p in nats.

    q [batch, head, token, dim]; k and v [batch, kv_head, token, dim], with head a multiple of kv_head, in the order of
    `repeat_interleave`; any strides. gates γ: [head] or [batch, head], None is 1. means μ: [head, dim], None is 0.
    segments: [batch, token]; integers: a run of equal numbers is one document, which sees nothing but itself, and −1 is
    padding; booleans: False is padding. A padding row gives output 0, H = 0, masses 0, lse −∞.
    window: a row sees itself and the window − 1 tokens before it (needs `causal`). softcap c: score ← c·tanh(score/c).
    scale: 1/√dim if None. Sink: the first token of the row's own document, 0 where the window hides it.

    Gradients flow to q, k, v, gates and means through torch's own attention; statistics carry none. With a gradient
    and `segments` or `window`, a boolean mask [batch, token, token] exists.
    Raises KernelError for shapes, dtypes or options that do not fit.
    """
    _check(q, k, v, gates, means, causal, segments, window, softcap)
    factor = q.shape[-1] ** -0.5 if scale is None else float(scale)
    cap = None if softcap is None else float(softcap)
    bounds = None if segments is None else bounds_of(segments)
    tensors = [tensor for tensor in (q, k, v, gates, means) if tensor is not None]
    chosen = choose("attention_stats", backend, tensors, objection=_objection(q, v))
    trains = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
    if chosen == "triton" and q.numel() and k.numel():
        from babelscope_kernels.attention_stats.kernel import attention_stats_triton

        given = (None, None) if trains else (gates, means)
        stats = attention_stats_triton(q, k, v, *given, bounds, causal, window, cap, factor, not trains)
    else:
        stats = _stats(q, k, v, bounds, causal, window, cap, factor, not trains)
    if trains:
        stats = stats._replace(output=_output(q, k, v, bounds, causal, window, cap, factor))
    if trains or chosen == "torch":
        stats = stats._replace(output=_gated(stats.output, gates, means, bounds).to(q.dtype))
    return stats


def _gated(output: Tensor, gates: Tensor | None, means: Tensor | None, bounds: Bounds | None) -> Tensor:
    if gates is None:
        return output
    gate = gates.to(output.dtype).expand(output.shape[:2])[:, :, None, None]
    if means is None:
        return gate * output
    mixed = gate * output + (1 - gate) * means.to(output.dtype)[None, :, None]
    return mixed if bounds is None else torch.where((bounds.ends > 0)[:, None, :, None], mixed, 0.0)


def _output(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bounds: Bounds | None,
    causal: bool,
    window: int | None,
    softcap: float | None,
    scale: float,
) -> Tensor:
    """Ungated output with gradients."""
    if bounds is None and window is None and softcap is None:
        return functional.scaled_dot_product_attention(q, k, v, is_causal=causal, scale=scale, enable_gqa=True)
    n_token = q.shape[2]
    whole = torch.zeros(1, n_token, dtype=torch.int32, device=q.device)
    limits = Bounds(whole, whole + n_token) if bounds is None else bounds
    itself = torch.eye(n_token, dtype=torch.bool, device=q.device)  # padding sees itself here, and is set to 0 below
    seen = visible(limits, causal, window) | itself
    if softcap is None:
        output = functional.scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=scale, enable_gqa=True)
    else:
        output = capped_output(q, k, v, seen, softcap=softcap, scale=scale)
    return torch.where((limits.ends > 0)[:, None, :, None], output, 0.0)


def _stats(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bounds: Bounds | None,
    causal: bool,
    window: int | None,
    softcap: float | None,
    scale: float,
    with_output: bool,
) -> AttentionStats:
    q, k, v = q.detach(), k.detach(), v.detach()
    edges = [] if bounds is None else list(bounds)
    return AttentionStats(*_blocked(q, k, v, edges, causal, window, softcap, scale, with_output))


def _fake_blocked(q: Tensor, k: Tensor, v: Tensor, *settings: Any) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    with_output = settings[-1]
    wide = torch.float64 if q.dtype == torch.float64 else torch.float32
    output = q.new_empty((*q.shape[:3], v.shape[-1] if with_output else 0), dtype=wide)
    entropy, sink, previous, lse = (q.new_empty(q.shape[:3], dtype=wide) for _ in range(4))
    return output, entropy, sink, previous, lse


@operator("babelscope_kernels::attention_by_blocks", _fake_blocked)
def _blocked(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    edges: list[Tensor],
    causal: bool,
    window: int | None,
    softcap: float | None,
    scale: float,
    with_output: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    bounds = Bounds(*edges) if edges else None
    return attention_by_blocks(
        q, k, v, bounds, causal=causal, window=window, softcap=softcap, scale=scale, with_output=with_output
    )


def _objection(q: Tensor, v: Tensor) -> str:
    widest = max(q.shape[-1], v.shape[-1])
    return "" if widest <= 256 else f"head dimension {widest}, at most 256"


def _check(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    gates: Tensor | None,
    means: Tensor | None,
    causal: bool,
    segments: Tensor | None,
    window: int | None,
    softcap: float | int | None,
) -> None:
    shapes = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in (("q", q), ("k", k), ("v", v)))
    if not (q.ndim == k.ndim == v.ndim == 4 and q.shape[0] == k.shape[0] and q.shape[2:] == k.shape[2:]):
        raise KernelError(
            f"attention_stats: {shapes}, expected [batch, head, token, dim] with equal batch, token and dim"
        )
    if k.shape[:3] != v.shape[:3] or not k.shape[1] or q.shape[1] % k.shape[1]:
        raise KernelError(f"attention_stats: {shapes}, expected heads of k and v alike and dividing those of q")
    if not (q.dtype == k.dtype == v.dtype and q.is_floating_point()):
        raise KernelError(f"attention_stats: dtypes {q.dtype}, {k.dtype}, {v.dtype}, expected one floating dtype")
    (n_batch, n_head, n_token, _), n_value = q.shape, v.shape[-1]
    if gates is not None and tuple(gates.shape) not in ((n_head,), (n_batch, n_head)):
        raise KernelError(f"attention_stats: gates {tuple(gates.shape)}, expected ({n_head},) or ({n_batch}, {n_head})")
    if means is not None and (gates is None or tuple(means.shape) != (n_head, n_value)):
        raise KernelError(f"attention_stats: means {tuple(means.shape)}, expected ({n_head}, {n_value}) beside gates")
    if segments is not None and (segments.shape != (n_batch, n_token) or segments.is_floating_point()):
        raise KernelError(
            f"attention_stats: segments {segments.dtype} {tuple(segments.shape)}, "
            f"expected integers or booleans ({n_batch}, {n_token})"
        )
    if window is not None and (window < 1 or not causal):
        raise KernelError(f"attention_stats: window {window}, causal {causal}; a window is 1 or more and needs causal")
    if softcap is not None and not softcap > 0:
        raise KernelError(f"attention_stats: softcap {softcap}, expected more than 0")
