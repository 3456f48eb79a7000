"""The one place where Triton kernels are launched, and how torch.compile sees past what launches them."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

from babelscope_kernels.errors import KernelError

P = ParamSpec("P")
T = TypeVar("T")
GRID_LIMITS = (2**31 - 1, 2**16 - 1, 2**16 - 1)
"""Programs that CUDA allows along each axis of a grid."""


@dataclass(frozen=True)
class Launch:
    """What one launch was given."""

    kernel: Any
    """The `@triton.jit` function."""
    grid: tuple[int, ...]
    arguments: tuple[object, ...]
    constants: dict[str, object]


@dataclass
class Recording:
    """Launches that were written down and not made."""

    shared: int
    """Bytes of shared memory that a program of the imagined GPU may have."""
    launches: list[Launch] = field(default_factory=list)


_recordings: list[Recording] = []


@contextmanager
def recorded(shared: int) -> Iterator[Recording]:
    """While open, launches are written down in place of being made, and every tensor counts as one on a GPU.

    Meant for tensors of the device "meta", which have shapes and no memory: what would be compiled is seen without a
    GPU. shared: bytes of shared memory that a program may have there.
    """
    recording = Recording(shared)
    _recordings.append(recording)
    try:
        yield recording
    finally:
        _recordings.remove(recording)


def on_gpu(tensor: Tensor) -> bool:
    """Whether a tensor is on a GPU, or counts as being on one."""
    return tensor.is_cuda or bool(_recordings)


def launch(kernel: Any, grid: tuple[int, ...], *arguments: object, **constants: object) -> None:
    """Run a `@triton.jit` function on a grid of programs, in the order of the current stream of its tensors' device.

    Triton launches on the current device whatever device the tensors are on, so the device is made current first.
    arguments: at least one of them a tensor, all tensors on one device. constants: by name, with num_warps, num_stages.
    Raises KernelError for a grid that is beyond CUDA's limits.
    """
    if any(size > limit for size, limit in zip(grid, GRID_LIMITS, strict=False)):
        raise KernelError(f"{kernel.__name__}: a grid of {grid} programs, at most {GRID_LIMITS}; give fewer tokens")
    if _recordings:
        _recordings[-1].launches.append(Launch(kernel, grid, arguments, constants))
        return
    with _current(next(argument.device for argument in arguments if isinstance(argument, Tensor))):
        kernel[grid](*arguments, **constants)


def shared_memory(device: torch.device) -> int:
    """Bytes of shared memory that one program on this GPU may have."""
    if _recordings:
        return _recordings[-1].shared
    return torch.cuda.get_device_properties(device).shared_memory_per_block_optin


def _current(device: torch.device) -> AbstractContextManager[Any]:
    # The guard costs more than the question, and nearly always there is one device only.
    if device.type != "cuda" or device.index == torch.cuda.current_device():
        return nullcontext()
    return torch.cuda.device(device)


def returns_nothing(*arguments: object) -> None:
    """The fake of an operator that only writes into its arguments."""


def operator(
    name: str, fake: Callable[..., object] = returns_nothing, *, writes: Sequence[str] = ()
) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Make a function an operator of torch under torch.compile, and leave it a plain function everywhere else.

    A graph holds the operator as one node and does not look inside. Outside of one a call to an operator costs some 50
    microseconds more than the function: more than most kernels take.
    name: "babelscope_kernels::…". fake: is given the same arguments, and gives outputs of the right shapes and dtypes
    without values. writes: the arguments that are written into.
    """

    def make(function: Callable[P, T]) -> Callable[P, T]:
        node = torch.library.custom_op(name, mutates_args=tuple(writes))(function)
        node.register_fake(fake)

        @wraps(function)
        def call(*arguments: P.args, **words: P.kwargs) -> T:
            return (node if torch.compiler.is_compiling() else function)(*arguments, **words)

        return call

    return make
