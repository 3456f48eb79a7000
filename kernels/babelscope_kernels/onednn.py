"""Float32 products of matrices on a CPU by oneDNN, where torch itself asks MKL; and the rule between them.

MKL keeps to AVX2 on AMD's CPUs, oneDNN, which torch has too, does not: 512 × 1408 × 512 takes 3.4 ms instead of 7.4 on
one thread of AMD Zen 5. Not measured on Intel's.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

LEAST = 1 << 20
"""Multiplications from which on it is faster: 128 × 128 × 64 takes 19 µs, not 22; 64 × 128 × 64 takes 16, not 12."""


_OFF: list[None] = []
"""As many entries as `torch_only` is open."""


@contextmanager
def torch_only() -> Iterator[None]:
    """While open every product is torch's own: for the bits of a plain forward pass, or to see what oneDNN gives."""
    _OFF.append(None)
    try:
        yield
    finally:
        _OFF.pop()


def usable(device: torch.device, dtype: torch.dtype) -> bool:
    """True for float32 on a CPU with AVX-512, outside torch.compile and `torch_only`."""
    return (
        not torch.compiler.is_compiling()
        and not _OFF
        and device.type == "cpu"
        and dtype == torch.float32
        and torch.backends.mkldnn.is_available()
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
    )


def suits(left: Tensor, right: Tensor) -> bool:
    """Whether `linear` takes oneDNN: both usable, the product large enough, and no gaps in either matrix."""
    large = left.shape[0] * left.shape[1] * right.shape[0] >= LEAST
    return (
        large
        and left.dtype == right.dtype
        and usable(left.device, left.dtype)
        and right.device == left.device
        and _dense(left)
        and _dense(right)
    )


def linear(left: Tensor, right: Tensor) -> Tensor:
    """left [row, inner] @ right [column, inner]ᵀ, outside autograd: by oneDNN where it suits, else by torch's own.

    Within 1e-5 of the largest absolute sum of either; the same bits on every repeat of the same shapes and threads.
    """
    return by_onednn(left, right) if suits(left, right) else left @ right.T


def by_onednn(left: Tensor, right: Tensor) -> Tensor:
    """The same by oneDNN without asking; with gaps in a matrix it takes many times as long."""
    return torch.ops.mkldnn._linear_pointwise(left, right, None, "none", [], "")


def _dense(matrix: Tensor) -> bool:
    """By rows or by columns."""
    return matrix.is_contiguous() or matrix.T.is_contiguous()
