"""Triton: one read and one write of the residual stream per edit; a token of strength 0 keeps its bits."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from babelscope_kernels.launching import launch


@triton.jit
def _steer_fwd_kernel(
    hidden, vector, strength, out, number, n_token, width, per, stride,
    NUMBER: tl.constexpr, PROJECT: tl.constexpr, UNIT: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * BLOCK_T + tl.arange(0, BLOCK_T)
    column = tl.arange(0, BLOCK_D)
    live = row < n_token
    here = live[:, None] & (column < width)[None, :]
    if NUMBER:
        given = tl.zeros([BLOCK_T], tl.float32) + tl.cast(number, tl.float32)
    else:
        given = tl.load(strength + row, mask=live, other=0.0).to(tl.float32)
    raw = tl.load(hidden + row[:, None] * stride + column[None, :], mask=here, other=0.0)
    x = raw.to(tl.float32)
    place = vector + (row // per)[:, None] * width + column[None, :]
    v = tl.load(place, mask=here, other=0.0).to(tl.float32)
    weight = given
    if PROJECT:
        weight = -1.0 * given * tl.sum(x * v, axis=1)
        if not UNIT:
            weight = weight / tl.sum(v * v, axis=1)
    new = (x + weight[:, None] * v).to(out.dtype.element_ty)
    tl.store(out + row[:, None] * width + column[None, :], tl.where((given != 0)[:, None], new, raw), mask=here)


def blocks_of(width: int) -> dict[str, int]:
    """A whole row in registers, and as many rows as make about 4,096 values."""
    block_d = triton.next_power_of_2(width)
    return {"BLOCK_T": max(1, min(16, 4096 // block_d)), "BLOCK_D": block_d}


def warps_of(block_d: int) -> int:
    """Thirty-two values for each thread."""
    return 4 if block_d <= 4096 else 8 if block_d <= 8192 else 16


def _rows(hidden: Tensor) -> Tensor:
    flat = hidden.reshape(-1, hidden.shape[-1])
    return flat if flat.stride(-1) == 1 or flat.shape[-1] <= 1 else flat.contiguous()


def launch_edit(hidden: Tensor, vector: Tensor, strength: Tensor | float, project: bool, unit: bool) -> Tensor:
    """vector: float32 [1 or row, hidden]. strength: float32 [token], over all rows, or one number for all.

    unit: whether a vector that is projected out has length one already.
    """
    flat, vector = _rows(hidden), vector.contiguous()
    number = not isinstance(strength, Tensor)
    strengths, alike = (vector, float(strength)) if number else (strength.contiguous(), 0.0)
    out = torch.empty(hidden.shape, dtype=hidden.dtype, device=hidden.device)
    if out.numel():
        n_token, width = flat.shape
        blocks = blocks_of(width)
        warps = {"num_warps": warps_of(blocks["BLOCK_D"])}
        grid = (triton.cdiv(n_token, blocks["BLOCK_T"]),)
        launch(
            _steer_fwd_kernel, grid,
            flat, vector, strengths, out, alike, n_token, width, n_token // vector.shape[0], flat.stride(0),
            NUMBER=number, PROJECT=project, UNIT=unit, **blocks, **warps,
        )  # fmt: skip
    return out
