"""Triton: counts by a product of the 0/1 table of a few languages by each tile; sums of columns in one launch."""

# Triton's types do not know its own loops.
# pyright: reportGeneralTypeIssues=false, reportArgumentType=false, reportOperatorIssue=false

import torch
import triton
import triton.language as tl
from torch import Tensor

from babelscope_kernels.launching import launch


@triton.jit
def _active_counts_fwd_kernel(
    value, languages, counts, n_token, n_unit, n_language, stride,
    FEW: tl.constexpr, BLOCK_L: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_N: tl.constexpr, STEPS: tl.constexpr,
):  # fmt: skip
    column = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    first = tl.program_id(1).to(tl.int64) * (BLOCK_T * STEPS)
    inside = (column < n_unit)[None, :]
    low = tl.full((), 0, tl.int32)
    high = tl.full((), 0, tl.int32)
    if not FEW:
        token = first + tl.arange(0, BLOCK_T * STEPS)
        spoken = tl.load(languages + token, mask=token < n_token, other=-1).to(tl.int32)
        known = (spoken >= 0) & (spoken < n_language)
        low, high = tl.min(tl.where(known, spoken, n_language)), tl.max(tl.where(known, spoken, -1))
    # A few languages at a time, from the lowest that these tokens have: documents follow each other, and nearly always
    # one round does. More rounds read the same values again, out of the cache.
    for lowest in range(low, high + 1, BLOCK_L):
        which = lowest + tl.arange(0, BLOCK_L)
        active = tl.zeros([BLOCK_L, BLOCK_N], tl.float32)
        for step in range(STEPS):
            row = first + step * BLOCK_T + tl.arange(0, BLOCK_T)
            here = (row < n_token)[:, None] & inside
            language = tl.load(languages + row, mask=row < n_token, other=-1).to(tl.int32)
            x = tl.load(value + row[:, None] * stride + column[None, :], mask=here, other=0.0).to(tl.float32)
            member = which[:, None] == language[None, :]
            active = tl.dot(member.to(tl.float16), (x > 0).to(tl.float16), acc=active)
        kept = (which < n_language)[:, None] & inside
        place = which[:, None].to(tl.int64) * n_unit + column[None, :]
        # Whole numbers, exact in float32; integer atomics give the same sum in any order.
        tl.atomic_add(counts + place, active.to(tl.int64), mask=kept & (active > 0))


@triton.jit
def _column_sums_fwd_kernel(
    value, counted, partial, ended, sums, n_token, n_unit, stride, parts,
    BLOCK_T: tl.constexpr, BLOCK_N: tl.constexpr, STEPS: tl.constexpr,
):  # fmt: skip
    column = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    part = tl.program_id(1).to(tl.int64)
    inside = (column < n_unit)[None, :]
    # Added up place by place, and over the places once at the end: sums across threads cost more than the reading.
    total = tl.zeros([BLOCK_T, BLOCK_N], tl.float32)
    square = tl.zeros([BLOCK_T, BLOCK_N], tl.float32)
    for step in tl.range(0, STEPS, num_stages=1, loop_unroll_factor=4):
        row = (part * STEPS + step) * BLOCK_T + tl.arange(0, BLOCK_T)
        here = row < n_token
        # What counts is asked after the values, so that their loads do not wait for it.
        inner = here[:, None] & inside
        x = tl.load(value + row[:, None] * stride + column[None, :], mask=inner, other=0.0).to(tl.float32)
        counts = tl.load(counted + row, mask=here, other=0).to(tl.int32) != 0
        x = tl.where(counts[:, None], x, 0.0)
        total += x
        square += x * x
    place = partial + 2 * part * n_unit + column
    tl.store(place, tl.sum(total, axis=0), mask=column < n_unit)
    tl.store(place + n_unit, tl.sum(square, axis=0), mask=column < n_unit)
    # The program of these columns that ends last adds all parts in their order: the same result each time, and no
    # second launch, which costs as much as a tenth of the reading.
    tl.debug_barrier()
    if tl.atomic_add(ended + tl.program_id(0).to(tl.int64), 1, sem="acq_rel") == parts - 1:
        whole = tl.zeros([BLOCK_N], tl.float64)
        squares = tl.zeros([BLOCK_N], tl.float64)
        place = partial + column
        for _ in range(parts):
            # Not out of this processor's own cache: other processors wrote them.
            whole += tl.load(place, mask=column < n_unit, other=0.0, cache_modifier=".cg").to(tl.float64)
            squares += tl.load(place + n_unit, mask=column < n_unit, other=0.0, cache_modifier=".cg").to(tl.float64)
            place += 2 * n_unit
        tl.store(sums + column, whole, mask=column < n_unit)
        tl.store(sums + n_unit + column, squares, mask=column < n_unit)


COUNTS = {"BLOCK_L": 16, "BLOCK_T": 64, "BLOCK_N": 128, "STEPS": 8, "num_warps": 4, "num_stages": 4}
"""For 16 bits; the fastest of those that were tried on an H200."""
WIDE_COUNTS = {**COUNTS, "num_stages": 2}
"""For float32: four blocks under way would take nearly all the shared memory that some cards have."""
ODD_COUNTS = {"BLOCK_L": 16, "BLOCK_T": 32, "BLOCK_N": 64, "STEPS": 16, "num_warps": 4, "num_stages": 1}
"""For rows that do not begin at a multiple of 16 bytes, which are read value by value; wider tiles spill."""
COLUMNS = {"BLOCK_T": 8, "BLOCK_N": 128, "STEPS": 64, "num_warps": 2}
"""512 tokens are added in float32. The fastest of the shapes that were tried on an H200."""


def rows_of(value: Tensor) -> Tensor:
    """[token, unit] with neighbouring units side by side; copies only where it must."""
    rows = value.reshape(-1, value.shape[-1])
    return rows if rows.stride(-1) == 1 or rows.shape[-1] <= 1 else rows.contiguous()


def launch_counts(value: Tensor, languages: Tensor, n_language: int) -> Tensor:
    """Counts, int64 [language, unit]."""
    rows = rows_of(value)
    n_token, n_unit = rows.shape
    counts = torch.zeros(n_language, n_unit, dtype=torch.int64, device=value.device)
    if rows.numel() and n_language:
        blocks = COUNTS if rows.element_size() == 2 else WIDE_COUNTS
        blocks = blocks if rows.stride(0) % 16 == 0 else ODD_COUNTS
        grid = (triton.cdiv(n_unit, blocks["BLOCK_N"]), triton.cdiv(n_token, blocks["BLOCK_T"] * blocks["STEPS"]))
        launch(
            _active_counts_fwd_kernel, grid,
            rows, languages.reshape(-1), counts, n_token, n_unit, n_language, rows.stride(0),
            FEW=n_language <= blocks["BLOCK_L"], **blocks,
        )  # fmt: skip
    return counts


def launch_column_sums(value: Tensor, counted: Tensor) -> Tensor:
    """Sums of values and of squares over the counted tokens, float64 [2, unit]."""
    rows = rows_of(value)
    n_token, n_unit = rows.shape
    parts = triton.cdiv(n_token, COLUMNS["BLOCK_T"] * COLUMNS["STEPS"])
    columns = triton.cdiv(n_unit, COLUMNS["BLOCK_N"])
    if not rows.numel():
        return torch.zeros(2, n_unit, dtype=torch.float64, device=value.device)
    sums = torch.empty(2, n_unit, dtype=torch.float64, device=value.device)
    partial = torch.empty(parts, 2, n_unit, dtype=torch.float32, device=value.device)
    ended = torch.zeros(columns, dtype=torch.int32, device=value.device)
    launch(
        _column_sums_fwd_kernel, (columns, parts),
        rows, counted.reshape(-1), partial, ended, sums, n_token, n_unit, rows.stride(0), parts, **COLUMNS,
    )  # fmt: skip
    return sums
