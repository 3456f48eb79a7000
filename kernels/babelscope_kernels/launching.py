"""The one place where a Triton kernel is launched: on the device of its tensors, within the limits of a grid."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from babelscope_kernels.errors import KernelError

GRID_LIMITS = (2**31 - 1, 2**16 - 1, 2**16 - 1)
"""Programs that CUDA allows along each axis of a grid."""


def launch(kernel: Any, grid: tuple[int, ...], *arguments: object, **constants: object) -> None:
    """Run a `@triton.jit` function on a grid of programs, in the order of the current stream of its tensors' device.

    Triton launches on the current device whatever device the tensors are on, so the device is made current first.
    arguments: at least one of them a tensor, all tensors on one device. constants: by name, with num_warps, num_stages.
    Raises KernelError for a grid that is beyond CUDA's limits.
    """
    if any(size > limit for size, limit in zip(grid, GRID_LIMITS, strict=False)):
        raise KernelError(f"{kernel.__name__}: a grid of {grid} programs, at most {GRID_LIMITS}; give fewer tokens")
    with _current(next(argument.device for argument in arguments if isinstance(argument, Tensor))):
        kernel[grid](*arguments, **constants)


def _current(device: torch.device) -> AbstractContextManager[Any]:
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()
