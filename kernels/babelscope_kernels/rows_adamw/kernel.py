"""Triton: one launch for the trained rows of all layers; each program updates a piece of one row."""

# Triton's types know neither launches, nor constants, nor its own loops.
# pyright: reportCallIssue=false, reportArgumentType=false, reportPossiblyUnboundVariable=false
# pyright: reportOperatorIssue=false, reportGeneralTypeIssues=false, reportAttributeAccessIssue=false

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from babelscope_kernels.launching import launch, operator
from babelscope_kernels.rows_adamw.targets import RowTargets

BLOCK = 1024


@triton.jit
def _rows_adamw_fwd_kernel(
    masters,
    grads,
    moments1,
    moments2,
    base,
    rows,
    which,
    weights,
    n_hidden,
    keep1,
    add1,
    keep2,
    add2,
    pull,
    rate,
    spread,
    eps,
    HAS_BASE: tl.constexpr,
    WEIGHT: tl.constexpr,
    ROUND: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    hidden = tl.program_id(1).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = hidden < n_hidden
    place = row * n_hidden + hidden
    # Scalars may come in as float64, which would widen all that follows.
    keep1, add1 = tl.cast(keep1, tl.float32), tl.cast(add1, tl.float32)
    keep2, add2 = tl.cast(keep2, tl.float32), tl.cast(add2, tl.float32)
    pull, rate = tl.cast(pull, tl.float32), tl.cast(rate, tl.float32)
    spread, eps = tl.cast(spread, tl.float32), tl.cast(eps, tl.float32)
    theta = tl.load(masters + place, mask=inside, other=0.0).to(tl.float32)
    grad = tl.load(grads + place, mask=inside, other=0.0).to(tl.float32)
    first = tl.load(moments1 + place, mask=inside, other=0.0).to(tl.float32)
    second = tl.load(moments2 + place, mask=inside, other=0.0).to(tl.float32)
    if HAS_BASE:
        theta -= pull * (theta - tl.load(base + place, mask=inside, other=0.0).to(tl.float32))
    else:
        theta -= pull * theta
    first = keep1 * first + add1 * grad
    second = keep2 * second + add2 * grad * grad
    theta -= rate * first / (tl.sqrt_rn(second) / spread + eps)
    tl.store(masters + place, theta, mask=inside)
    tl.store(moments1 + place, first, mask=inside)
    tl.store(moments2 + place, second, mask=inside)
    # Three numbers tell of each weight: its address, and its strides in elements.
    number = 3 * tl.load(which + row, mask=True, other=0).to(tl.int64)
    start = tl.load(weights + number, mask=True, other=0).to(tl.int64)
    row_stride = tl.load(weights + number + 1, mask=True, other=0).to(tl.int64)
    hidden_stride = tl.load(weights + number + 2, mask=True, other=0).to(tl.int64)
    offset = tl.load(rows + row, mask=True, other=0).to(tl.int64) * row_stride + hidden * hidden_stride
    weight = start.to(tl.pointer_type(WEIGHT)) + offset
    if ROUND:
        # To nearest, ties to even, in the bits: the store's own cast truncates in Triton's interpreter.
        bits = theta.to(tl.int32, bitcast=True)
        near = (bits + 0x7FFF + ((bits >> 16) & 1)) & -65536
        theta = tl.where(theta == theta, near.to(tl.float32, bitcast=True), theta)
    tl.store(weight, theta.to(WEIGHT), mask=inside)


@operator("babelscope_kernels::rows_adamw_", writes=("masters", "moments1", "moments2", "weights"))
def _launch(
    masters: Tensor,
    grads: Tensor,
    moments1: Tensor,
    moments2: Tensor,
    weights: Sequence[Tensor],
    base: Tensor | None,
    rows: Tensor,
    which: Tensor,
    scalars: Sequence[float],
) -> None:
    n_row, n_hidden = masters.shape
    places = torch.tensor([(weight.data_ptr(), *weight.stride()) for weight in weights]).to(masters.device)
    launch(
        _rows_adamw_fwd_kernel,
        (n_row, triton.cdiv(n_hidden, BLOCK)),
        masters,
        grads,
        moments1,
        moments2,
        masters if base is None else base,
        rows,
        which,
        places,
        n_hidden,
        *scalars,
        HAS_BASE=base is not None,
        WEIGHT=WEIGHTS[weights[0].dtype],
        ROUND=weights[0].dtype == torch.bfloat16,
        BLOCK=BLOCK,
        num_warps=4,
    )


def rows_adamw_triton_(
    masters: Tensor,
    grads: Tensor,
    moments1: Tensor,
    moments2: Tensor,
    targets: RowTargets,
    base: Tensor | None,
    lr: float | int,
    betas: tuple[float, float],
    eps: float,
    decay: float | int,
    step: int,
) -> None:
    """Scalars in float64 on the host, one launch for all rows."""
    scalars = [betas[0], 1 - betas[0], betas[1], 1 - betas[1], lr * decay]
    scalars += [lr / (1 - betas[0] ** step), (1 - betas[1] ** step) ** 0.5, eps]
    _launch(masters, grads, moments1, moments2, list(targets.weights), base, *targets.table(), scalars)


WEIGHTS = {torch.bfloat16: tl.bfloat16, torch.float16: tl.float16, torch.float32: tl.float32}
