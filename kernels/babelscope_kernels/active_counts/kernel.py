"""Triton: counts, and sums where asked, of one pass; a product of the 0/1 table of languages by each tile."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from babelscope_kernels.launching import launch
from babelscope_kernels.shipped import Shipped

STEPS = 8
EIGHT_WARPS = {"num_warps": 8}


@triton.jit
def _active_counts_fwd_kernel(
    value, languages, counts, partial, n_token, n_unit, n_language, stride,
    SUMS: tl.constexpr, TOGETHER: tl.constexpr,
    BLOCK_L: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_N: tl.constexpr, STEPS: tl.constexpr,
):  # fmt: skip
    column = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    part = tl.program_id(1).to(tl.int64)
    inside = (column < n_unit)[None, :]
    which = tl.arange(0, BLOCK_L)
    active = tl.zeros([BLOCK_L, BLOCK_N], tl.float32)
    total = tl.zeros([1 if TOGETHER else BLOCK_L, BLOCK_N], tl.float32)
    square = tl.zeros([1 if TOGETHER else BLOCK_L, BLOCK_N], tl.float32)
    for step in range(STEPS):
        row = (part * STEPS + step) * BLOCK_T + tl.arange(0, BLOCK_T)
        here = (row < n_token)[:, None] & inside
        language = tl.load(languages + row, mask=row < n_token, other=-1).to(tl.int32)
        x = tl.load(value + row[:, None] * stride + column[None, :], mask=here, other=0.0).to(tl.float32)
        member = which[:, None] == language[None, :]
        active = tl.dot(member.to(tl.float16), (x > 0).to(tl.float16), acc=active)
        if SUMS:
            x = tl.where((language >= 0)[:, None], x, 0.0)
            if TOGETHER:
                total += tl.sum(x, axis=0)[None, :]
                square += tl.sum(x * x, axis=0)[None, :]
            else:
                weight = member.to(tl.float32)
                total = tl.dot(weight, x, acc=total, input_precision="tf32x3")
                square = tl.dot(weight, x * x, acc=square, input_precision="tf32x3")
    kept = (which < n_language)[:, None] & inside
    place = which[:, None].to(tl.int64) * n_unit + column[None, :]
    # Whole numbers below 2²⁴ in float32; integer atomics give the same sum in any order.
    tl.atomic_add(counts + place, active.to(tl.int32), mask=kept & (active > 0))
    if SUMS:
        size = tl.cast(n_language, tl.int64) * n_unit
        if TOGETHER:
            size = tl.cast(n_unit, tl.int64)
            place = column[None, :]
            kept = inside
        tl.store(partial + 2 * part * size + place, total, mask=kept)
        tl.store(partial + (2 * part + 1) * size + place, square, mask=kept)


def blocks_of(n_language: int, tables: bool) -> dict[str, int]:
    """Tile and table; the table in registers holds 2,048 to 8,192 values, at most 4,096 where sums have tables too."""
    block_l = max(16, triton.next_power_of_2(n_language))
    width = 128 if block_l * (2 if tables else 1) <= 32 else 64
    steps = STEPS * (2 if tables else 1)
    return {"BLOCK_L": block_l, "BLOCK_T": 32 if tables else 64, "BLOCK_N": width, "STEPS": steps}


def launch_counts(
    value: Tensor, languages: Tensor, n_language: int, sums: bool, together: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Counts int64 [language, unit]; sums of values and of squares float64, empty where not asked.

    together: sums of all languages' tokens [1, unit], in place of [language, unit].
    """
    rows = value.reshape(-1, value.shape[-1])
    rows = rows if rows.stride(-1) == 1 or rows.shape[-1] <= 1 else rows.contiguous()
    n_token, n_unit = rows.shape
    blocks = blocks_of(n_language, sums and not together)
    parts = triton.cdiv(n_token, blocks["BLOCK_T"] * blocks["STEPS"])
    counts = torch.zeros(n_language, n_unit, dtype=torch.int32, device=value.device)
    size = (parts if sums else 0, 2, 1 if together else n_language, n_unit)
    partial = torch.empty(size, dtype=torch.float32, device=value.device)
    if rows.numel() and n_language:
        grid = (triton.cdiv(n_unit, blocks["BLOCK_N"]), parts)
        launch(
            _active_counts_fwd_kernel, grid,
            rows, languages.reshape(-1), counts, partial, n_token, n_unit, n_language, rows.stride(0),
            SUMS=sums, TOGETHER=together, **blocks, **EIGHT_WARPS,
        )  # fmt: skip
    if not sums:
        none = [torch.empty(0, n_unit, dtype=torch.float64, device=value.device) for _ in range(2)]
        return counts.to(torch.int64), none[0], none[1]
    # The second stage adds the parts in their order, so that the result is the same each time.
    total = partial.sum(dim=0, dtype=torch.float64)
    return counts.to(torch.int64), total[0].clone(), total[1].clone()


def _shipped() -> list[Shipped]:
    found = []
    for kind in ("bf16", "fp16", "fp32"):
        for n_language in (16, 32, 64, 128):
            for sums, together in ((False, False), (True, False), (True, True)):
                types = {"value": f"*{kind}", "languages": "*i32", "counts": "*i32", "partial": "*fp32"}
                whole = dict.fromkeys(("n_token", "n_unit", "n_language", "stride"), "i32")
                found.append(
                    Shipped(
                        f"{'together' if together else 'sums' if sums else 'counts'}{n_language}-{kind}",
                        _active_counts_fwd_kernel,
                        {**types, **whole},
                        {"SUMS": sums, "TOGETHER": together, **blocks_of(n_language, sums and not together)},
                        8,
                        3,
                        (*types, "n_unit", "stride"),
                    )
                )
    return found


SHIPPED = _shipped()
