"""Triton: each row is read once and kept in registers while its largest units are taken out."""

# Triton's types do not know its own loops.
# pyright: reportGeneralTypeIssues=false, reportArgumentType=false

import torch
import triton
import triton.language as tl
from torch import Tensor

from babelscope_kernels.launching import launch


@triton.jit
def _row_lengths_fwd_kernel(
    value, whole, ordinary, n_row, n_unit, stride, bar,
    ROUNDS: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * BLOCK_T + tl.arange(0, BLOCK_T)
    column = tl.arange(0, BLOCK_D)
    live = row < n_row
    here = live[:, None] & (column < n_unit)[None, :]
    x = tl.load(value + row[:, None] * stride + column[None, :], mask=here, other=0.0).to(tl.float32)
    bar = tl.cast(bar, tl.float32)
    squares = x * x
    total = tl.sum(squares, axis=1)
    tl.store(whole + row, tl.sqrt_rn(total), mask=live)
    # Most rows have no unit above the bar, or none after the first round; where nothing was taken out, nothing will be.
    above = 1
    for _ in tl.static_range(ROUNDS):
        if above:
            large = squares > bar * total[:, None]
            above = tl.max(large.to(tl.int32).reshape(BLOCK_T * BLOCK_D))
            if above:
                squares = tl.where(large, 0.0, squares)
                total = tl.sum(squares, axis=1)
    tl.store(ordinary + row, tl.sqrt_rn(total), mask=live)


def blocks_of(n_unit: int) -> dict[str, int]:
    """A whole row in registers, and as many rows as make about 4,096 values."""
    block_d = triton.next_power_of_2(n_unit)
    return {"BLOCK_T": max(1, min(16, 4096 // block_d)), "BLOCK_D": block_d}


def launch_lengths(value: Tensor, bar: float, rounds: int) -> tuple[Tensor, Tensor]:
    """Whole and ordinary lengths, float32 [row]."""
    flat = value.reshape(-1, value.shape[-1])
    flat = flat if flat.stride(-1) == 1 or flat.shape[-1] == 1 else flat.contiguous()
    n_row, n_unit = flat.shape
    whole, ordinary = (torch.empty(n_row, dtype=torch.float32, device=value.device) for _ in range(2))
    if n_row:
        blocks = blocks_of(n_unit)
        warps = 4 if blocks["BLOCK_D"] <= 4096 else 8  # the fastest of 1 to 16 on an H200
        grid = (triton.cdiv(n_row, blocks["BLOCK_T"]),)
        launch(
            _row_lengths_fwd_kernel, grid,
            flat, whole, ordinary, n_row, n_unit, flat.stride(0), bar, ROUNDS=rounds, **blocks, num_warps=warps,
        )  # fmt: skip
    return whole, ordinary
