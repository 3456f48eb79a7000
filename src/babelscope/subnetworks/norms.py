"""Root-mean-square norms whose weight is frozen: the model's own bits forward, a short way back."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from babelscope.axes import Float, Tensor
from babelscope.models import Layout

NORMS = ("LlamaRMSNorm", "MistralRMSNorm", "Qwen2RMSNorm", "Qwen3RMSNorm", "Phi3RMSNorm")
"""Classes of transformers that compute weight · (x / sqrt(mean(x²) + ε)) in float32, cast before the weight."""


@contextmanager
def frozen_norms(layout: Layout, lowest: int) -> Iterator[None]:
    """While open, the known norms of layers from `lowest` on, and of the body, go back in fewer passes.

    One whose function, weight or class somebody else replaced is left alone.
    """
    above = [layout.layer(layer) for layer in range(lowest, layout.n_layers)]
    modules = [module for block in above for module in block.modules()]
    with ExitStack() as stack:
        for module in (*modules, *layout.body.children()):
            if type(module).__name__ in NORMS and untouched(module):
                stack.callback(restore_forward, module, None)
                # An attribute of this one object stands before its class's method; deleting it brings that back.
                object.__setattr__(module, "forward", FrozenNorm(module))
        yield


def untouched(module: nn.Module) -> bool:
    """Whether a norm is transformers' own, computes by its class's forward, and has a frozen plain weight."""
    weight = module._parameters.get("weight")
    plain = type(weight) is nn.Parameter and type(weight.data) is torch.Tensor and not weight.requires_grad
    return plain and "forward" not in vars(module) and type(module).__module__.partition(".")[0] == "transformers"


def restore_forward(module: nn.Module, before: Any) -> None:
    """Put back what stood at `module.forward` of this one object, if anything."""
    if before is None:
        object.__delattr__(module, "forward")
    else:
        object.__setattr__(module, "forward", before)


class FrozenNorm:
    """The forward pass of one norm."""

    def __init__(self, module: Any) -> None:
        self.module = module

    def __call__(self, hidden_states: Float[Tensor, "*rows hidden"]) -> Float[Tensor, "*rows hidden"]:
        """weight · (x / sqrt(mean(x²) + ε))."""
        weight = self.module.weight.detach()
        return _FrozenNorm.apply(hidden_states, weight, self.module.variance_epsilon)  # pyright: ignore[reportReturnType]


class _FrozenNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        wide = x.to(torch.float32)
        inverse = torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + epsilon)
        ctx.save_for_backward(x, weight, inverse)
        return weight * (wide * inverse).to(x.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """With r = 1 / sqrt(mean(x²) + ε) and g = weight · grad: dx = r·g − x·r³·mean(x·g)."""
        x, weight, inverse = ctx.saved_tensors
        wide, scaled = x.to(torch.float32), (grad * weight).to(torch.float32)
        along = torch.linalg.vecdot(wide, scaled, dim=-1)[..., None] / x.shape[-1]
        dx = scaled.mul_(inverse).addcmul_(wide, along * inverse.pow(3), value=-1)
        return dx.to(x.dtype), None, None
