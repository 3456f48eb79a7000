"""Triton: one pass over the keys per block of queries, with the entropy carried along as Σ 2^(s−m)·(s−m)."""

# Triton's types know neither launches, nor constants, nor its own loops.
# pyright: reportCallIssue=false, reportArgumentType=false, reportPossiblyUnboundVariable=false
# pyright: reportOperatorIssue=false, reportGeneralTypeIssues=false, reportAttributeAccessIssue=false

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from babelscope_kernels.attention_stats.statistics import AttentionStats, Bounds
from babelscope_kernels.launching import launch, on_gpu, operator, shared_memory

LN2 = 0.6931471805599453
CACHED = 32 << 20
"""Bytes of keys and values whose heads run side by side: about half of the second cache of an H100 or H200."""
LARGE_SHARED = 232_448
"""Bytes of shared memory of compute capability 9.0 and 10.0; 8.9 and 12.0 have 101,376, 8.0 has 166,912."""


@triton.jit
def _score(product, factor, softcap, CAPPED: tl.constexpr):
    """Scores in units of ln 2; `factor` is scale / ln 2, or scale / softcap where there is a cap."""
    if CAPPED:
        return (2.0 * tl.sigmoid(2.0 * factor * product) - 1.0) * softcap
    return product * factor


@triton.jit
def _tile(place, mask, OPERAND: tl.constexpr):
    raw = tl.load(place, mask=mask, other=0.0)
    return raw.to(OPERAND)


@triton.jit
def _attention_stats_fwd_kernel(
    q,
    k,
    v,
    gates,
    means,
    starts,
    ends,
    output,
    stats,
    n_token,
    n_head,
    group,
    factor,
    softcap,
    window,
    q_batch,
    q_head,
    q_token,
    k_batch,
    k_head,
    k_token,
    v_batch,
    v_head,
    v_token,
    gate_batch,
    n_stats,
    together,
    DIM: tl.constexpr,
    VALUE: tl.constexpr,
    PAD_DIM: tl.constexpr,
    PAD_VALUE: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_K: tl.constexpr,
    CAUSAL: tl.constexpr,
    PACKED: tl.constexpr,
    WINDOWED: tl.constexpr,
    CAPPED: tl.constexpr,
    GATED: tl.constexpr,
    CENTRED: tl.constexpr,
    OUTPUT: tl.constexpr,
    STATS: tl.constexpr,
    OPERAND: tl.constexpr,
    KIND: tl.constexpr,
):
    # One axis of programs: rows of a batch times heads would be beyond what a second axis may have. The last queries,
    # which see most keys, come first, those of the heads that share the cache: begun last, a long one would run alone.
    program = tl.program_id(0).to(tl.int64)
    across = tl.cdiv(n_token, BLOCK_Q)
    heads = tl.num_programs(0) // across
    before = program // (across * together) * together
    beside = tl.minimum(heads - before, together)
    program -= before * across
    first = (across - 1 - program // beside) * BLOCK_Q
    batch = (before + program % beside) // n_head
    head = (before + program % beside) % n_head
    factor, softcap = tl.cast(factor, tl.float32), tl.cast(softcap, tl.float32)
    # Token numbers are 32 bits wide; offsets are 64, but within a tile: 128 tokens of one head.
    row = first.to(tl.int32) + tl.arange(0, BLOCK_Q)
    dim = tl.arange(0, PAD_DIM)
    value = tl.arange(0, PAD_VALUE)
    inside = row < n_token
    k_base = k + batch * k_batch + head // group * k_head
    v_base = v + batch * v_batch + head // group * v_head
    q_tile = q + batch * q_batch + head * q_head + row.to(tl.int64)[:, None] * q_token + dim[None, :]
    query = _tile(q_tile, inside[:, None] & (dim < DIM)[None, :], OPERAND)
    low = tl.full((), 0, tl.int32)
    high = tl.full((), 0, tl.int32) + n_token
    start = tl.zeros((BLOCK_Q,), tl.int32)
    end = start + n_token
    if PACKED:
        start = tl.load(starts + batch * n_token + row, mask=inside, other=n_token).to(tl.int32)
        end = tl.load(ends + batch * n_token + row, mask=inside, other=0).to(tl.int32)
        low = tl.min(start)
        high = tl.max(end)
    if CAUSAL:
        high = tl.minimum(high, tl.max(row) + 1)
    if WINDOWED:
        low = tl.maximum(low, tl.min(row) - window + 1)
    low = low // BLOCK_K * BLOCK_K
    gate = 1.0
    if GATED:
        gate = tl.load(gates + batch * gate_batch + head, mask=True, other=0.0).to(tl.float32)
        if not STATS:
            high = tl.where(gate == 0.0, low, high)
    top = tl.full((BLOCK_Q,), -1e30, tl.float32)
    total = tl.zeros((BLOCK_Q,), tl.float32)
    spread = tl.zeros((BLOCK_Q,), tl.float32)
    mixed = tl.zeros((BLOCK_Q, PAD_VALUE), tl.float32)
    # Blocks of keys that every row of this block sees whole need no mask on their scores.
    whole = low
    if not PACKED and not WINDOWED:
        whole = (tl.minimum(tl.min(row), high) if CAUSAL else high) // BLOCK_K * BLOCK_K
        whole = tl.minimum(whole, high)
    k_tile = tl.arange(0, BLOCK_K)[:, None] * k_token + dim[None, :]
    v_tile = tl.arange(0, BLOCK_K)[:, None] * v_token + value[None, :]
    for MASKED in tl.static_range(0, 2):
        for block in tl.range(whole if MASKED else low, high if MASKED else whole, BLOCK_K):
            key = block + tl.arange(0, BLOCK_K)
            there = key < n_token
            place = k_base + tl.cast(block, tl.int64) * k_token + k_tile
            keys = _tile(place, there[:, None] & (dim < DIM)[None, :], OPERAND)
            product = tl.dot(query, tl.trans(keys), input_precision="ieee")
            score = _score(product, factor, softcap, CAPPED)
            if MASKED:
                seen = (key[None, :] >= start[:, None]) & (key[None, :] < end[:, None])
                if CAUSAL:
                    seen = seen & (key[None, :] <= row[:, None])
                if WINDOWED:
                    seen = seen & (row[:, None] - key[None, :] < window)
                # Finite, so that 0 · (score − top) stays 0; far below any top that a seen key has set.
                score = tl.where(seen, score, -1e30)
            higher = tl.maximum(top, tl.max(score, 1))
            shift = tl.exp2(top - higher)
            weight = tl.exp2(score - higher[:, None])
            if MASKED:
                weight = tl.where(seen, weight, 0.0)
            if STATS:
                spread = shift * (spread + total * tl.maximum(top - higher, -1e4))
                spread += tl.sum(weight * (score - higher[:, None]), 1)
            total = total * shift + tl.sum(weight, 1)
            if OUTPUT:
                values = _tile(
                    v_base + tl.cast(block, tl.int64) * v_token + v_tile,
                    there[:, None] & (value < VALUE)[None, :],
                    OPERAND,
                )
                mixed = tl.dot(weight.to(OPERAND), values, mixed * shift[:, None], input_precision="ieee")
            top = higher
    text = total > 0.0
    share = tl.where(text, total, 1.0)
    if OUTPUT:
        found = mixed / share[:, None]
        shown = inside
        if GATED:
            found = gate * found
            shown = inside & (start < end)
            if CENTRED:
                middle = tl.load(means + head * VALUE + value, mask=value < VALUE, other=0.0).to(tl.float32)
                found += (1.0 - gate) * middle[None, :]
            found = tl.where(shown[:, None], found, 0.0)
        tl.store(
            output + ((batch * n_head + head) * n_token + row.to(tl.int64)[:, None]) * VALUE + value[None, :],
            found.to(KIND),
            mask=inside[:, None] & (value < VALUE)[None, :],
        )
    if STATS:
        log = tl.log2(share)
        target = stats + (batch * n_head + head) * n_token + row
        tl.store(target, tl.where(text, 0.6931471805599453 * (log - spread / share), 0.0), mask=inside)
        lse = tl.where(text, 0.6931471805599453 * (top + log), float("-inf"))
        tl.store(target + 3 * n_stats, lse, mask=inside)
        wide = query.to(tl.float32)
        for which in tl.static_range(0, 2):
            key = start if which == 0 else row - 1
            seen = text & (key >= start) & inside
            if WINDOWED:
                seen = seen & (row - key < window)
            other = tl.load(
                k_base + key.to(tl.int64)[:, None] * k_token + dim[None, :],
                mask=seen[:, None] & (dim < DIM)[None, :],
                other=0.0,
            ).to(tl.float32)
            score = _score(tl.sum(wide * other, 1), factor, softcap, CAPPED)
            mass = tl.where(seen, tl.exp2(tl.minimum(score - top, 0.0)) / share, 0.0)
            tl.store(target + (1 + which) * n_stats, mass, mask=inside)


def _fake_launch(q: Tensor, k: Tensor, v: Tensor, *settings: Any) -> tuple[Tensor, Tensor]:
    *_, with_output, _ = settings
    output = q.new_empty((*q.shape[:3], v.shape[-1] if with_output else 0))
    return output, q.new_empty((4, *q.shape[:3]), dtype=torch.float32)


@operator("babelscope_kernels::attention_stats", _fake_launch)
def _launch(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    gates: Tensor | None,
    means: Tensor | None,
    edges: list[Tensor],
    causal: bool,
    window: int | None,
    softcap: float | None,
    scale: float,
    with_output: bool,
    with_stats: bool,
) -> tuple[Tensor, Tensor]:
    (n_batch, n_head, n_token, n_dim), n_value = q.shape, v.shape[-1]
    q, k, v = (tensor if tensor.stride(-1) == 1 else tensor.contiguous() for tensor in (q, k, v))
    output = torch.empty((*q.shape[:3], n_value if with_output else 0), dtype=q.dtype, device=q.device)
    stats = torch.empty((4, *q.shape[:3]), dtype=torch.float32, device=q.device)
    low = on_gpu(q) and q.dtype != torch.float32
    side = 16 if n_token <= 128 else 128
    config = (
        config_of(max(n_dim, n_value), low, shared_memory(q.device))
        if on_gpu(q)
        else {"BLOCK_Q": side, "BLOCK_K": side}
    )
    gate = q if gates is None else gates.contiguous()
    launch(
        _attention_stats_fwd_kernel,
        (triton.cdiv(n_token, config["BLOCK_Q"]) * n_batch * n_head,),
        q,
        k,
        v,
        gate,
        q if means is None else means.contiguous(),
        edges[0] if edges else q,
        edges[1] if edges else q,
        output,
        stats,
        n_token,
        n_head,
        n_head // k.shape[1],
        scale / (LN2 if softcap is None else softcap),
        1.0 if softcap is None else softcap / LN2,
        n_token if window is None else window,
        *q.stride()[:3],
        *k.stride()[:3],
        *v.stride()[:3],
        n_head if gate.ndim == 2 and gates is not None else 0,
        stats.stride(0),
        n_head // k.shape[1] * max(1, CACHED // max(1, n_token * (n_dim + n_value) * k.element_size())),
        DIM=n_dim,
        VALUE=n_value,
        PAD_DIM=max(16, triton.next_power_of_2(n_dim)),
        PAD_VALUE=max(16, triton.next_power_of_2(n_value)),
        CAUSAL=causal,
        PACKED=bool(edges),
        WINDOWED=window is not None,
        CAPPED=softcap is not None,
        GATED=gates is not None,
        CENTRED=means is not None,
        OUTPUT=with_output,
        STATS=with_stats,
        OPERAND=KINDS[q.dtype] if low else tl.float32,
        KIND=KINDS[q.dtype],
        **config,
    )
    return output, stats


def attention_stats_triton(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    gates: Tensor | None,
    means: Tensor | None,
    bounds: Bounds | None,
    causal: bool,
    window: int | None,
    softcap: float | None,
    scale: float,
    with_output: bool = True,
    with_stats: bool = True,
) -> AttentionStats:
    """Launch; gated output in the dtype of q. Without statistics (for the benchmark alone) they are not written."""
    tensors = [None if tensor is None else tensor.detach() for tensor in (q, k, v, gates, means)]
    edges = [] if bounds is None else list(bounds)
    output, stats = _launch(*tensors, edges, causal, window, softcap, scale, with_output, with_stats)  # pyright: ignore
    return AttentionStats(output, *stats.unbind(0))


def config_of(width: int, low: bool, shared: int) -> dict[str, int]:
    """Blocks by head dimension and by the bytes of shared memory that a program may have.

    float32 runs without tensor cores, in small blocks. 128 keys at once, three blocks of them under way, take 224 KB;
    with 64 it was slower on an H200 (the earlier rows of kernels/results/attention_stats.csv).
    """
    if not low:
        return {"BLOCK_Q": 16, "BLOCK_K": 16, "num_warps": 4, "num_stages": 2}
    if width <= 128 and shared >= LARGE_SHARED:
        return {"BLOCK_Q": 128, "BLOCK_K": 128, "num_warps": 8, "num_stages": 3}
    if width <= 128:
        return {"BLOCK_Q": 128, "BLOCK_K": 64, "num_warps": 8, "num_stages": 3}
    return {"BLOCK_Q": 64, "BLOCK_K": 16, "num_warps": 8, "num_stages": 2}


KINDS = {torch.bfloat16: tl.bfloat16, torch.float16: tl.float16, torch.float32: tl.float32}
