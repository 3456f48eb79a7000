"""Triton: each program encodes a share of the tokens for one block of features and counts in registers."""

# Triton's types know neither launches, nor constants, nor its own loops.
# pyright: reportCallIssue=false, reportArgumentType=false, reportPossiblyUnboundVariable=false
# pyright: reportOperatorIssue=false, reportGeneralTypeIssues=false, reportAttributeAccessIssue=false

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from babelscope_kernels.launching import launch, on_gpu, operator
from babelscope_kernels.sae_counts.fired import SaeCounts

SHARES = 8
"""Shares of the tokens, next to each other in launch order: programs at work together then read few blocks of w_enc,
which stay in cache, and many blocks of tokens, which stream."""


@triton.jit
def _tile(place, mask, OPERAND: tl.constexpr):
    raw = tl.load(place, mask=mask, other=0.0)
    return raw.to(OPERAND)


@triton.jit
def _sae_counts_fwd_kernel(
    hidden,
    w_enc,
    b_enc,
    threshold,
    languages,
    counts,
    sums,
    active,
    n_token,
    n_hidden,
    n_feature,
    n_language,
    share,
    hidden_stride,
    w_stride,
    threshold_stride,
    SUMS: tl.constexpr,
    ACTIVE: tl.constexpr,
    BLOCK_TOKEN: tl.constexpr,
    BLOCK_FEATURE: tl.constexpr,
    BLOCK_HIDDEN: tl.constexpr,
    BLOCK_LANGUAGE: tl.constexpr,
    OPERAND: tl.constexpr,
    ONE: tl.constexpr,
):
    part = tl.program_id(0).to(tl.int64)
    feature = tl.program_id(1).to(tl.int64) * BLOCK_FEATURE + tl.arange(0, BLOCK_FEATURE)
    known = feature < n_feature
    bias = tl.load(b_enc + feature, mask=known, other=0.0).to(tl.float32)
    limit = tl.load(threshold + feature * threshold_stride, mask=known, other=0.0).to(tl.float32)
    language = tl.arange(0, BLOCK_LANGUAGE)
    dim = tl.arange(0, BLOCK_HIDDEN)
    # Offsets are 64 bits wide, but within a tile: there 32 save registers.
    corner = tl.program_id(1).to(tl.int64) * BLOCK_FEATURE
    w_tile = dim[:, None] * w_stride + tl.arange(0, BLOCK_FEATURE)[None, :]
    x_tile = tl.arange(0, BLOCK_TOKEN)[:, None] * hidden_stride + dim[None, :]
    # Features along the rows: the 0/1 block then feeds the counting product from registers. A share has < 2^24 tokens.
    found = tl.zeros((BLOCK_FEATURE, BLOCK_LANGUAGE), tl.float32)
    total = tl.zeros((BLOCK_FEATURE, BLOCK_LANGUAGE), tl.float32)
    last = tl.minimum(part * share + share, n_token)
    for first in range(part * share, last, BLOCK_TOKEN):
        token = first + tl.arange(0, BLOCK_TOKEN)
        there = token < last
        z = tl.zeros((BLOCK_FEATURE, BLOCK_TOKEN), tl.float32)
        for start in range(0, n_hidden, BLOCK_HIDDEN):
            some = start + dim
            inner = some < n_hidden
            w = _tile(
                w_enc + corner + tl.cast(start, tl.int64) * w_stride + w_tile, inner[:, None] & known[None, :], OPERAND
            )
            x = _tile(hidden + first * hidden_stride + start + x_tile, there[:, None] & inner[None, :], OPERAND)
            z = tl.dot(tl.trans(w), tl.trans(x), z, input_precision="ieee")
        z += bias[:, None]
        fires = (z > limit[:, None]) & known[:, None] & there[None, :]
        spoken = tl.load(languages + token, mask=there, other=-1).to(tl.int32)
        same = spoken[:, None] == language[None, :]
        found = tl.dot(fires.to(ONE), same.to(ONE), found)
        if SUMS:
            total = tl.dot(tl.where(fires, z, 0.0), same.to(tl.float32), total, input_precision="ieee")
        if ACTIVE:
            tl.atomic_add(active + token, tl.sum(fires.to(tl.int32), 0), mask=there)
    place = (part * n_language + language[None, :]) * n_feature + feature[:, None]
    inside = known[:, None] & (language < n_language)[None, :]
    tl.store(counts + place, found.to(tl.int32), mask=inside)
    if SUMS:
        tl.store(sums + place, total, mask=inside)


def _fake_launch(hidden: Tensor, w_enc: Tensor, *settings: Any) -> tuple[Tensor, Tensor, Tensor]:
    *_, n_languages, with_sums, with_active = settings
    shape = (n_languages, w_enc.shape[1])
    return (
        hidden.new_empty(shape, dtype=torch.int64),
        hidden.new_empty(shape if with_sums else (1,), dtype=torch.float64),
        hidden.new_empty(len(hidden) if with_active else 1, dtype=torch.int64),
    )


@operator("babelscope_kernels::sae_counts", _fake_launch)
def _launch(
    hidden: Tensor,
    w_enc: Tensor,
    b_enc: Tensor,
    threshold: Tensor,
    languages: Tensor,
    n_languages: int,
    with_sums: bool,
    with_active: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    hidden, w_enc = (tensor if tensor.stride(1) == 1 else tensor.contiguous() for tensor in (hidden, w_enc))
    (n_token, n_hidden), n_feature = hidden.shape, w_enc.shape[1]
    low = on_gpu(hidden) and hidden.dtype != torch.float32
    config = config_of(low, with_sums) if on_gpu(hidden) else SMALL
    share = triton.cdiv(triton.cdiv(n_token, SHARES), config["BLOCK_TOKEN"]) * config["BLOCK_TOKEN"]
    shares = triton.cdiv(n_token, share)
    device, shape = hidden.device, (shares, n_languages, n_feature)
    counts = torch.empty(shape, dtype=torch.int32, device=device)
    sums = torch.empty(shape if with_sums else (1,), dtype=torch.float32, device=device)
    active = torch.zeros(n_token if with_active else 1, dtype=torch.int32, device=device)
    limit = threshold.to(torch.float32).reshape(-1).contiguous()
    launch(
        _sae_counts_fwd_kernel,
        (shares, triton.cdiv(n_feature, config["BLOCK_FEATURE"])),
        hidden,
        w_enc,
        b_enc.contiguous(),
        limit,
        languages.contiguous(),
        counts,
        sums,
        active,
        n_token,
        n_hidden,
        n_feature,
        n_languages,
        share,
        hidden.stride(0),
        w_enc.stride(0),
        int(threshold.ndim > 0),
        SUMS=with_sums,
        ACTIVE=with_active,
        BLOCK_LANGUAGE=max(16, triton.next_power_of_2(n_languages)),
        OPERAND=KINDS[hidden.dtype] if low else tl.float32,
        ONE=tl.bfloat16 if on_gpu(hidden) else tl.float32,
        **config,
    )
    summed = sums.double().sum(0) if with_sums else sums.double()
    return counts.long().sum(0), summed, active.long()


def sae_counts_triton(
    hidden: Tensor,
    w_enc: Tensor,
    b_enc: Tensor,
    threshold: Tensor,
    languages: Tensor,
    n_languages: int,
    with_sums: bool,
    with_active: bool,
) -> SaeCounts:
    """Launch; shares are added in whole numbers, and sums in order in float64."""
    found = _launch(hidden.to(w_enc.dtype), w_enc, b_enc, threshold, languages, n_languages, with_sums, with_active)
    return SaeCounts(found[0], found[1] if with_sums else None, found[2] if with_active else None)


def config_of(low: bool, with_sums: bool) -> dict[str, int]:
    """Blocks on compute capability 9.0 that fit in registers: 128 × 256 spills, and so does 128 × 128 with sums."""
    if not low:
        return {"BLOCK_TOKEN": 32, "BLOCK_FEATURE": 64, "BLOCK_HIDDEN": 32, "num_warps": 8, "num_stages": 2}
    wide = 64 if with_sums else 128
    return {"BLOCK_TOKEN": wide, "BLOCK_FEATURE": 128, "BLOCK_HIDDEN": 64, "num_warps": 8, "num_stages": 3}


SMALL = {"BLOCK_TOKEN": 32, "BLOCK_FEATURE": 32, "BLOCK_HIDDEN": 32}
KINDS = {torch.bfloat16: tl.bfloat16, torch.float16: tl.float16, torch.float32: tl.float32}
