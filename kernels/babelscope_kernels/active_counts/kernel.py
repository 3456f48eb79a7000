"""Triton: counts, and sums where asked, by a product of the 0/1 table of languages by each tile; sums of columns."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from babelscope_kernels.launching import launch


@triton.jit
def _active_counts_fwd_kernel(
    value, languages, counts, partial, n_token, n_unit, n_language, stride,
    SUMS: tl.constexpr, BLOCK_L: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_N: tl.constexpr, STEPS: tl.constexpr,
):  # fmt: skip
    column = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    part = tl.program_id(1).to(tl.int64)
    inside = (column < n_unit)[None, :]
    which = tl.arange(0, BLOCK_L)
    active = tl.zeros([BLOCK_L, BLOCK_N], tl.float32)
    total = tl.zeros([BLOCK_L, BLOCK_N], tl.float32)
    square = tl.zeros([BLOCK_L, BLOCK_N], tl.float32)
    for step in range(STEPS):
        row = (part * STEPS + step) * BLOCK_T + tl.arange(0, BLOCK_T)
        here = (row < n_token)[:, None] & inside
        language = tl.load(languages + row, mask=row < n_token, other=-1).to(tl.int32)
        x = tl.load(value + row[:, None] * stride + column[None, :], mask=here, other=0.0).to(tl.float32)
        member = which[:, None] == language[None, :]
        active = tl.dot(member.to(tl.float16), (x > 0).to(tl.float16), acc=active)
        if SUMS:
            x = tl.where((language >= 0)[:, None], x, 0.0)
            weight = member.to(tl.float32)
            total = tl.dot(weight, x, acc=total, input_precision="tf32x3")
            square = tl.dot(weight, x * x, acc=square, input_precision="tf32x3")
    kept = (which < n_language)[:, None] & inside
    place = which[:, None].to(tl.int64) * n_unit + column[None, :]
    # Whole numbers below 2²⁴ in float32; integer atomics give the same sum in any order.
    tl.atomic_add(counts + place, active.to(tl.int32), mask=kept & (active > 0))
    if SUMS:
        size = tl.cast(n_language, tl.int64) * n_unit
        tl.store(partial + 2 * part * size + place, total, mask=kept)
        tl.store(partial + (2 * part + 1) * size + place, square, mask=kept)


@triton.jit
def _column_sums_fwd_kernel(
    value, counted, partial, n_token, n_unit, stride, BLOCK_T: tl.constexpr, BLOCK_N: tl.constexpr, STEPS: tl.constexpr,
):  # fmt: skip
    column = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    part = tl.program_id(1).to(tl.int64)
    inside = (column < n_unit)[None, :]
    # Added up place by place, and over the places once at the end: sums across threads cost more than the reading.
    total = tl.zeros([BLOCK_T, BLOCK_N], tl.float32)
    square = tl.zeros([BLOCK_T, BLOCK_N], tl.float32)
    for step in range(STEPS):
        row = (part * STEPS + step) * BLOCK_T + tl.arange(0, BLOCK_T)
        counts = tl.load(counted + row, mask=row < n_token, other=0).to(tl.int32) != 0
        x = tl.load(value + row[:, None] * stride + column[None, :], mask=counts[:, None] & inside, other=0.0).to(
            tl.float32
        )
        total += x
        square += x * x
    place = partial + 2 * part * n_unit + column
    tl.store(place, tl.sum(total, axis=0), mask=column < n_unit)
    tl.store(place + n_unit, tl.sum(square, axis=0), mask=column < n_unit)


COLUMNS = {"BLOCK_T": 16, "BLOCK_N": 256, "STEPS": 32, "num_warps": 8}
"""512 tokens are added in float32."""


def blocks_of(n_language: int, sums: bool) -> dict[str, int]:
    """Tiles, and warps; 64 × 128 by eight were slower on an H200 (kernels/results/active_counts.csv, earlier rows)."""
    block_l = max(16, triton.next_power_of_2(n_language))
    width = 64 if sums and block_l > 16 else 128
    return {
        "BLOCK_L": block_l,
        "BLOCK_T": 32,
        "BLOCK_N": width,
        "STEPS": 16,
        "num_warps": 4 if block_l <= (16 if sums else 64) else 8,
    }


def rows_of(value: Tensor) -> Tensor:
    """[token, unit] with neighbouring units side by side; copies only where it must."""
    rows = value.reshape(-1, value.shape[-1])
    return rows if rows.stride(-1) == 1 or rows.shape[-1] <= 1 else rows.contiguous()


def launch_counts(value: Tensor, languages: Tensor, n_language: int, sums: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Counts int64, and sums of values and of squares float64 (empty where not asked), [language, unit]."""
    rows = rows_of(value)
    n_token, n_unit = rows.shape
    blocks = blocks_of(n_language, sums)
    parts = triton.cdiv(n_token, blocks["BLOCK_T"] * blocks["STEPS"])
    counts = torch.zeros(n_language, n_unit, dtype=torch.int32, device=value.device)
    partial = torch.empty(parts if sums else 0, 2, n_language, n_unit, dtype=torch.float32, device=value.device)
    if rows.numel() and n_language:
        grid = (triton.cdiv(n_unit, blocks["BLOCK_N"]), parts)
        launch(
            _active_counts_fwd_kernel, grid,
            rows, languages.reshape(-1), counts, partial, n_token, n_unit, n_language, rows.stride(0),
            SUMS=sums, **blocks,
        )  # fmt: skip
    if not sums:
        none = [torch.empty(0, n_unit, dtype=torch.float64, device=value.device) for _ in range(2)]
        return counts.to(torch.int64), none[0], none[1]
    # The second stage adds the parts in their order, so that the result is the same each time.
    total = partial.sum(dim=0, dtype=torch.float64)
    return counts.to(torch.int64), total[0].clone(), total[1].clone()


def launch_column_sums(value: Tensor, counted: Tensor) -> Tensor:
    """Sums of values and of squares over the counted tokens, float64 [2, unit]."""
    rows = rows_of(value)
    n_token, n_unit = rows.shape
    parts = triton.cdiv(n_token, COLUMNS["BLOCK_T"] * COLUMNS["STEPS"])
    partial = torch.empty(parts, 2, n_unit, dtype=torch.float32, device=value.device)
    if rows.numel():
        launch(
            _column_sums_fwd_kernel, (triton.cdiv(n_unit, COLUMNS["BLOCK_N"]), parts),
            rows, counted.reshape(-1), partial, n_token, n_unit, rows.stride(0), **COLUMNS,
        )  # fmt: skip
    return partial.sum(dim=0, dtype=torch.float64)
