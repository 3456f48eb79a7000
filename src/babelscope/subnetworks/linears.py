"""Linear maps whose weight is frozen: nothing is kept for the way back, and oneDNN does the products where it suits."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from babelscope_kernels.onednn import linear, usable
from einops import rearrange
from torch import nn

from babelscope.axes import Float, Tensor
from babelscope.models import Layout
from babelscope.models.plain import objection
from babelscope.subnetworks.norms import restore_forward


@contextmanager
def frozen_linears(layout: Layout) -> Iterator[None]:
    """While open, the linear maps of all blocks and the head run by oneDNN, where the rule of `onednn` allows it.

    Only plain ones: a subclass, packed weights, or a map that something has replaced or wrapped is left alone.
    """
    head = layout.head
    blocks = [module for index in range(layout.n_layers) for module in layout.layer(index).modules()]
    with ExitStack() as stack:
        for module in (*blocks, head):
            if type(module) is nn.Linear and "forward" not in vars(module) and fits(module):
                stack.callback(restore_forward, module, None)
                # An attribute of this one object stands before its class's method; deleting it brings that back.
                object.__setattr__(module, "forward", FrozenLinear(module))
        yield


def fits(module: nn.Linear) -> bool:
    """Whether a map is frozen, and of a kind that oneDNN takes."""
    frozen = not any(parameter.requires_grad for parameter in module.parameters())
    return frozen and objection(module) is None and usable(module.weight.device, module.weight.dtype)


class FrozenLinear:
    """The forward pass of one map."""

    def __init__(self, module: nn.Linear) -> None:
        self.module = module

    def __call__(self, input: Float[Tensor, "*rows inner"]) -> Float[Tensor, "*rows column"]:
        """x Wᵀ + b."""
        weight, bias = self.module.weight.detach(), self.module.bias
        if input.dtype != weight.dtype:
            return F.linear(input, weight, bias)
        out = _FrozenLinear.apply(input, weight)
        return out if bias is None else out + bias.detach()  # pyright: ignore[reportReturnType, reportOptionalOperand]


class _FrozenLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.weight = weight
        return multiply(x, weight)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return multiply(grad, ctx.weight.T), None


def multiply(x: Float[Tensor, "*rows inner"], weight: Float[Tensor, "column inner"]) -> Float[Tensor, "*rows column"]:
    """x Wᵀ, outside autograd."""
    flat = rearrange(x, "... inner -> (...) inner")
    return linear(flat, weight).view(*x.shape[:-1], len(weight))
