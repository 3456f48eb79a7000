"""h = act(gate)·up, as the formula reads."""

import torch
from torch import Tensor
from torch.nn import functional

from babelscope_kernels.active_counts.reference import active_counts_reference


def activate(gate: Tensor, activation: str) -> Tensor:
    """act(gate): "silu", "gelu" (exact, by erf) or "gelu_tanh"."""
    if activation == "silu":
        return functional.silu(gate)
    return functional.gelu(gate, approximate="none" if activation == "gelu" else "tanh")


def swiglu_reference(gate: Tensor, up: Tensor, activation: str = "silu") -> Tensor:
    """act(gate)·up in float32 (float64 stays), rounded once to the dtype of the gate."""
    wide = torch.float64 if gate.dtype == torch.float64 else torch.float32
    return (activate(gate.to(wide), activation) * up.to(wide)).to(gate.dtype)


def positive_gates_reference(gate: Tensor, languages: Tensor, n_language: int) -> Tensor:
    """Tokens of each language whose gate is above 0: silu and gelu have the sign of their argument."""
    return active_counts_reference(gate, languages, n_language)
