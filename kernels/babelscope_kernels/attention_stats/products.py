"""The two ways to a batch of float32 matrix products on a CPU, and the rule between them."""

from collections.abc import Callable

import torch
from torch import Tensor

from babelscope_kernels import onednn

Product = Callable[[Tensor, Tensor], Tensor]
"""left [pair, row, inner], right [pair, column, inner] → left @ rightᵀ [pair, row, column]."""
LEAST = 2**15
"""Keys that a row may see × head dimension, from which on oneDNN is as fast or faster (one thread, AMD Zen 5)."""


def suits_onednn(device: torch.device, dtype: torch.dtype, seen: int, dim: int) -> bool:
    """True on a CPU with AVX-512, for float32 and enough keys: 256 with heads of 128, 1024 with heads of 32.

    Fewer keys are not worth its calls, one for each key head, nor the 0.3 ms that it takes to meet a new shape.
    """
    return seen * dim >= LEAST and onednn.usable(device, dtype)


def by_bmm(left: Tensor, right: Tensor) -> Tensor:
    """Any number of pairs at once."""
    return torch.bmm(left, right.mT)


def by_onednn(left: Tensor, right: Tensor) -> Tensor:
    """One pair; each matrix dense by rows or by columns, since with gaps the same call takes 22 ms and more."""
    return onednn.by_onednn(left[0], right[0])[None]
