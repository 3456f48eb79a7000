"""Triton: one pass over gate and up, forward and backward; positive gates counted from the same registers."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from babelscope_kernels.launching import launch

FORWARD = {"BLOCK_T": 4, "BLOCK_N": 512, "STEPS": 1}
BACKWARD = {"BLOCK_T": 4, "BLOCK_N": 256}
FOUR_WARPS = {"num_warps": 4}
COUNT_STEPS = 8
ACTIVATIONS = ("silu", "gelu", "gelu_tanh")


@triton.jit
def _value_and_slope(x, ACTIVATION: tl.constexpr):
    """act(x) and act'(x), float32."""
    if ACTIVATION == "silu":
        sigmoid = tl.sigmoid(x)
        value = x * sigmoid
        slope = sigmoid * (1.0 + x * (1.0 - sigmoid))
    elif ACTIVATION == "gelu":
        below = 0.5 * (1.0 + tl.erf(x * 0.7071067811865476))
        value = x * below
        slope = below + x * 0.3989422804014327 * tl.exp(-0.5 * x * x)
    else:
        square = x * x
        tanh = 2.0 * tl.sigmoid(2.0 * 0.7978845608028654 * x * (1.0 + 0.044715 * square)) - 1.0
        value = 0.5 * x * (1.0 + tanh)
        inner = 0.7978845608028654 * (1.0 + 3.0 * 0.044715 * square)
        slope = 0.5 * (1.0 + tanh) + 0.5 * x * (1.0 - tanh * tanh) * inner
    return value, slope


@triton.jit
def _swiglu_fwd_kernel(
    gate, up, out, languages, counts, n_token, n_neuron, n_language, stride_gate, stride_up,
    ACTIVATION: tl.constexpr, COUNT: tl.constexpr, BLOCK_L: tl.constexpr,
    BLOCK_T: tl.constexpr, BLOCK_N: tl.constexpr, STEPS: tl.constexpr,
):  # fmt: skip
    # One axis of programs, neurons innermost: tokens / 4 would be beyond what a second axis may have.
    program = tl.program_id(0).to(tl.int64)
    across = tl.cdiv(n_neuron, BLOCK_N)
    column = program % across * BLOCK_N + tl.arange(0, BLOCK_N)
    first = program // across * (BLOCK_T * STEPS)
    inside = (column < n_neuron)[None, :]
    which = tl.arange(0, BLOCK_L)
    total = tl.zeros([BLOCK_L, BLOCK_N], tl.float32)
    for step in range(STEPS):
        row = first + step * BLOCK_T + tl.arange(0, BLOCK_T)
        here = (row < n_token)[:, None] & inside
        g = tl.load(gate + row[:, None] * stride_gate + column[None, :], mask=here, other=0.0).to(tl.float32)
        u = tl.load(up + row[:, None] * stride_up + column[None, :], mask=here, other=0.0).to(tl.float32)
        value, _ = _value_and_slope(g, ACTIVATION)
        place = out + row[:, None] * tl.cast(n_neuron, tl.int64) + column[None, :]
        tl.store(place, (value * u).to(out.dtype.element_ty), mask=here)
        if COUNT:
            language = tl.load(languages + row, mask=row < n_token, other=-1).to(tl.int32)
            member = (which[:, None] == language[None, :]).to(tl.float16)
            total = tl.dot(member, (g > 0).to(tl.float16), acc=total)
    if COUNT:
        # Whole numbers below 2²⁴ in float32; integer atomics give the same sum in any order.
        place = counts + which[:, None].to(tl.int64) * n_neuron + column[None, :]
        tl.atomic_add(place, total.to(tl.int32), mask=(which < n_language)[:, None] & inside & (total > 0))


@triton.jit
def _swiglu_bwd_kernel(
    grad, gate, up, grad_gate, grad_up, hidden, n_token, n_neuron, n_hidden, stride_grad, stride_gate, stride_up,
    ACTIVATION: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0).to(tl.int64)
    across = tl.cdiv(n_neuron, BLOCK_N)
    column = program % across * BLOCK_N + tl.arange(0, BLOCK_N)
    row = program // across * BLOCK_T + tl.arange(0, BLOCK_T)
    here = (row < n_token)[:, None] & (column < n_neuron)[None, :]
    d = tl.load(grad + row[:, None] * stride_grad + column[None, :], mask=here, other=0.0).to(tl.float32)
    g = tl.load(gate + row[:, None] * stride_gate + column[None, :], mask=here, other=0.0).to(tl.float32)
    u = tl.load(up + row[:, None] * stride_up + column[None, :], mask=here, other=0.0).to(tl.float32)
    value, slope = _value_and_slope(g, ACTIVATION)
    place = row[:, None] * tl.cast(n_neuron, tl.int64) + column[None, :]
    tl.store(grad_gate + place, (d * u * slope).to(grad_gate.dtype.element_ty), mask=here)
    tl.store(grad_up + place, (d * value).to(grad_up.dtype.element_ty), mask=here)
    kept = (row < n_token)[:, None] & (column < n_hidden)[None, :]
    place = row[:, None] * tl.cast(n_hidden, tl.int64) + column[None, :]
    tl.store(hidden + place, (value * u).to(hidden.dtype.element_ty), mask=kept)


def rows_of(tensor: Tensor) -> Tensor:
    """[row, unit] with neighbouring units side by side; copies only where it must."""
    flat = tensor.reshape(-1, tensor.shape[-1])
    return flat if flat.stride(-1) == 1 or flat.shape[-1] <= 1 else flat.contiguous()


def counting(block_l: int) -> dict[str, int]:
    """Blocks of the counting form: the table of counts in registers holds 2,048 to 8,192 values.

    Blocks of 32 tokens by eight warps were slower on an H200 (the earlier rows of kernels/results/swiglu.csv).
    """
    return {"BLOCK_T": 16, "BLOCK_N": 128 if block_l <= 32 else 64, "STEPS": COUNT_STEPS}


def block_of(n_language: int) -> int:
    """Rows of the table of counts: a power of two, at least the 16 that a matrix product needs."""
    return max(16, triton.next_power_of_2(n_language))


def launch_forward(
    gate: Tensor, up: Tensor, activation: str, languages: Tensor, n_language: int
) -> tuple[Tensor, Tensor]:
    """h like the gate, and int64 counts [n_language, neuron] of this call."""
    g, u = rows_of(gate), rows_of(up)
    n_token, n_neuron = g.shape
    out = torch.empty(gate.shape, dtype=gate.dtype, device=gate.device)
    counts = torch.zeros(n_language, n_neuron, dtype=torch.int32, device=gate.device)
    count = n_language > 0
    block_l = block_of(n_language)
    blocks = counting(block_l) if count else FORWARD
    if out.numel():
        grid = (triton.cdiv(n_neuron, blocks["BLOCK_N"]) * triton.cdiv(n_token, blocks["BLOCK_T"] * blocks["STEPS"]),)
        launch(
            _swiglu_fwd_kernel, grid,
            g, u, out, languages.reshape(-1), counts, n_token, n_neuron, n_language, g.stride(0), u.stride(0),
            ACTIVATION=activation, COUNT=count, BLOCK_L=block_l, **blocks, **FOUR_WARPS,
        )  # fmt: skip
    return out, counts.to(torch.int64)


def launch_backward(
    grad: Tensor, gate: Tensor, up: Tensor, activation: str, n_hidden: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of gate and up, and the first n_hidden columns of h."""
    d, g, u = rows_of(grad), rows_of(gate), rows_of(up)
    n_token, n_neuron = g.shape
    grad_gate = torch.empty(gate.shape, dtype=gate.dtype, device=gate.device)
    grad_up = torch.empty_like(grad_gate)
    hidden = torch.empty(*gate.shape[:-1], n_hidden, dtype=gate.dtype, device=gate.device)
    if grad_gate.numel():
        grid = (triton.cdiv(n_neuron, BACKWARD["BLOCK_N"]) * triton.cdiv(n_token, BACKWARD["BLOCK_T"]),)
        launch(
            _swiglu_bwd_kernel, grid,
            d, g, u, grad_gate, grad_up, hidden, n_token, n_neuron, n_hidden, d.stride(0), g.stride(0), u.stride(0),
            ACTIVATION=activation, **BACKWARD, **FOUR_WARPS,
        )  # fmt: skip
    return grad_gate, grad_up, hidden
