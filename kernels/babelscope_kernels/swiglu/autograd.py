"""Gradients of the gated activation; the Triton passes are operators of their own, so torch.compile sees through."""

from typing import Any

import torch
from torch import Tensor

from babelscope_kernels.active_counts.blocks import count_in_blocks
from babelscope_kernels.launching import operator
from babelscope_kernels.swiglu.reference import activate


def _fake_triton_forward(
    gate: Tensor, up: Tensor, activation: str, languages: Tensor, n_language: int
) -> tuple[Tensor, Tensor]:
    return gate.new_empty(gate.shape), gate.new_empty(n_language, gate.shape[-1], dtype=torch.int64)


@operator("babelscope::swiglu_forward", _fake_triton_forward)
def _triton_forward(
    gate: Tensor, up: Tensor, activation: str, languages: Tensor, n_language: int
) -> tuple[Tensor, Tensor]:
    from babelscope_kernels.swiglu.kernel import launch_forward

    return launch_forward(gate, up, activation, languages, n_language)


def _fake_triton_backward(
    grad: Tensor, gate: Tensor, up: Tensor, activation: str, n_hidden: int
) -> tuple[Tensor, Tensor, Tensor]:
    hidden = gate.new_empty(*gate.shape[:-1], n_hidden)
    return gate.new_empty(gate.shape), gate.new_empty(gate.shape), hidden


@operator("babelscope::swiglu_backward", _fake_triton_backward)
def _triton_backward(
    grad: Tensor, gate: Tensor, up: Tensor, activation: str, n_hidden: int
) -> tuple[Tensor, Tensor, Tensor]:
    from babelscope_kernels.swiglu.kernel import launch_backward

    return launch_backward(grad, gate, up, activation, n_hidden)


def forward(
    gate: Tensor, up: Tensor, activation: str, languages: Tensor, n_language: int, backend: str
) -> tuple[Tensor, Tensor]:
    """h, and int64 counts of positive gates [n_language, neuron]."""
    if backend == "triton":
        return _triton_forward(gate, up, activation, languages, n_language)
    empty = gate.new_zeros(0, gate.shape[-1], dtype=torch.int64)
    counts = count_in_blocks(gate, languages, n_language) if n_language else empty
    value = activate(gate, activation)
    if value.requires_grad or up.requires_grad or torch.compiler.is_compiling():
        return value * up, counts
    # Nothing else holds it: written into, it costs no page faults.
    return value.mul_(up), counts


def backward(
    grad: Tensor, gate: Tensor, up: Tensor, activation: str, n_hidden: int, backend: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of gate and up, and the first n_hidden columns of h."""
    if backend == "triton":
        return _triton_backward(grad, gate, up, activation, n_hidden)
    value = activate(gate, activation)
    hidden = value[..., :n_hidden] * up[..., :n_hidden]
    through = grad * up
    if through.requires_grad or value.requires_grad or torch.compiler.is_compiling():
        return _through(through, gate, activation), grad * value, hidden
    # Nothing else holds these two: written into, they cost no page faults.
    _through(through, gate, activation, grad_input=through)
    return through, value.mul_(grad), hidden


def _through(grad: Tensor, gate: Tensor, activation: str, **into: Tensor) -> Tensor:
    """grad·act'(gate), by torch's own pass."""
    if activation == "silu":
        return torch.ops.aten.silu_backward(grad, gate, **into)
    how = "none" if activation == "gelu" else "tanh"
    return torch.ops.aten.gelu_backward(grad, gate, approximate=how, **into)


class Swiglu(torch.autograd.Function):
    """Saves gate and up only; act(gate) is computed again in the backward pass."""

    @staticmethod
    def forward(
        ctx: Any, gate: Tensor, up: Tensor, activation: str, languages: Tensor, n_language: int, backend: str
    ) -> tuple[Tensor, Tensor]:
        """h and the counts."""
        out, counts = forward(gate, up, activation, languages, n_language, backend)
        ctx.save_for_backward(gate, up)
        ctx.activation, ctx.backend = activation, backend
        ctx.mark_non_differentiable(counts)
        return out, counts

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, ...]:
        """Gradients of gate and up."""
        gate, up = ctx.saved_tensors
        grad_gate, grad_up, _ = backward(grads[0], gate, up, ctx.activation, 0, ctx.backend)
        return grad_gate, grad_up, None, None, None, None
