"""Triton: each program sums one tile of dWᵀ over one share of the tokens; shares are added in order."""

# Triton's types know neither launches, nor constants, nor its own loops.
# pyright: reportCallIssue=false, reportArgumentType=false, reportPossiblyUnboundVariable=false
# pyright: reportOperatorIssue=false, reportGeneralTypeIssues=false, reportAttributeAccessIssue=false

import torch
import triton
import triton.language as tl
from torch import Tensor

from babelscope_kernels.launching import launch, operator

BLOCK_HIDDEN = 128
BLOCK_TOKEN = 64
PROGRAMS = 264
"""Tiles aimed at: two for each of an H200's 132 multiprocessors. Fixed, so that sums do not depend on the device."""
SHARE = 256
"""Fewest tokens for which a share of its own pays."""


@triton.jit
def _rows_wgrad_kernel(
    grad_rows,
    inputs,
    out,
    n_token,
    n_row,
    n_read,
    n_hidden,
    share,
    grad_token_stride,
    grad_row_stride,
    input_token_stride,
    input_hidden_stride,
    out_share_stride,
    out_row_stride,
    ADD: tl.constexpr,
    BLOCK_ROW: tl.constexpr,
    BLOCK_HIDDEN: tl.constexpr,
    BLOCK_TOKEN: tl.constexpr,
    OPERAND: tl.constexpr,
):
    hidden = tl.program_id(0).to(tl.int64) * BLOCK_HIDDEN + tl.arange(0, BLOCK_HIDDEN)
    row = tl.program_id(1).to(tl.int64) * BLOCK_ROW + tl.arange(0, BLOCK_ROW)
    part = tl.program_id(2).to(tl.int64)
    first = part * share
    last = tl.minimum(first + share, n_token)
    total = tl.zeros((BLOCK_HIDDEN, BLOCK_ROW), tl.float32)
    for start in range(first, last, BLOCK_TOKEN):
        token = start + tl.arange(0, BLOCK_TOKEN)
        there = (token < last)[:, None]
        raw = tl.load(
            inputs + token[:, None] * input_token_stride + hidden[None, :] * input_hidden_stride,
            mask=there & (hidden < n_hidden)[None, :],
            other=0.0,
        )
        x = raw.to(OPERAND)
        raw = tl.load(
            grad_rows + token[:, None] * grad_token_stride + row[None, :] * grad_row_stride,
            mask=there & (row < n_read)[None, :],
            other=0.0,
        )
        total = tl.dot(tl.trans(x), raw.to(OPERAND), total, input_precision="ieee")
    place = out + part * out_share_stride + row[:, None] * out_row_stride + hidden[None, :]
    inside = (row < n_row)[:, None] & (hidden < n_hidden)[None, :]
    found = tl.trans(total)
    if ADD:
        found += tl.load(place, mask=inside, other=0.0).to(tl.float32)
    tl.store(place, found, mask=inside)


@triton.jit
def _rows_wgrad_add_kernel(parts, out, n_part, n_value, n_hidden, out_row_stride, BLOCK: tl.constexpr):
    value = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = value < n_value
    place = out + value // n_hidden * out_row_stride + value % n_hidden
    total = tl.load(place, mask=inside, other=0.0).to(tl.float32)
    for part in range(0, n_part):
        total += tl.load(parts + value + tl.cast(part, tl.int64) * n_value, mask=inside, other=0.0).to(tl.float32)
    tl.store(place, total, mask=inside)


def shares(n_token: int, n_row: int, n_hidden: int, block_row: int) -> int:
    """How many shares the tokens are split in; from the shape alone, so that sums repeat."""
    tiles = triton.cdiv(n_row, block_row) * triton.cdiv(n_hidden, BLOCK_HIDDEN)
    return max(1, min(PROGRAMS // tiles, triton.cdiv(n_token, SHARE)))


def block_row_of(n_row: int) -> int:
    """Rows of a tile: 16, 32, 64 or 128."""
    return min(128, max(16, triton.next_power_of_2(n_row)))


def readable(grad_rows: Tensor) -> int:
    """Columns that may be read: k rounded up to 16 where memory goes on behind the view, so that loads are wide.

    What is read beyond k falls into rows of the tile that are never stored.
    """
    n_token, n_row = grad_rows.shape
    wide = triton.cdiv(n_row, 16) * 16
    end = grad_rows.storage_offset() + (n_token - 1) * grad_rows.stride(0) + (wide - 1) * grad_rows.stride(1)
    behind = end < grad_rows.untyped_storage().nbytes() // grad_rows.element_size()
    return wide if behind and grad_rows.stride(1) == 1 else n_row


@operator("babelscope_kernels::rows_wgrad_", writes=("out",))
def rows_wgrad_(grad_rows: Tensor, inputs: Tensor, out: Tensor, low: bool) -> None:
    """Launch. `low`: tiles stay in their own 16-bit dtype, for the tensor cores; else they are widened to float32."""
    (n_token, n_row), n_hidden = grad_rows.shape, inputs.shape[1]
    block_row = block_row_of(n_row)
    parts = shares(n_token, n_row, n_hidden, block_row)
    share = triton.cdiv(triton.cdiv(n_token, parts), BLOCK_TOKEN) * BLOCK_TOKEN
    parts = triton.cdiv(n_token, share)
    kept = out if parts == 1 else torch.empty((parts, n_row, n_hidden), dtype=torch.float32, device=out.device)
    grid = (triton.cdiv(n_hidden, BLOCK_HIDDEN), triton.cdiv(n_row, block_row), parts)
    launch(
        _rows_wgrad_kernel,
        grid,
        grad_rows,
        inputs,
        kept,
        n_token,
        n_row,
        readable(grad_rows),
        n_hidden,
        share,
        *grad_rows.stride(),
        *inputs.stride(),
        0 if parts == 1 else kept.stride(0),
        kept.stride(-2),
        ADD=parts == 1,
        BLOCK_ROW=block_row,
        BLOCK_HIDDEN=BLOCK_HIDDEN,
        BLOCK_TOKEN=BLOCK_TOKEN,
        OPERAND=OPERANDS[grad_rows.dtype] if low else tl.float32,
        **LAUNCH[low],
    )
    if parts > 1:
        n_value = n_row * n_hidden
        launch(
            _rows_wgrad_add_kernel,
            (triton.cdiv(n_value, 1024),),
            kept,
            out,
            parts,
            n_value,
            n_hidden,
            out.stride(0),
            BLOCK=1024,
        )


OPERANDS = {torch.bfloat16: tl.bfloat16, torch.float16: tl.float16, torch.float32: tl.float32}
LAUNCH = {True: {"num_warps": 4, "num_stages": 3}, False: {"num_warps": 8, "num_stages": 2}}
