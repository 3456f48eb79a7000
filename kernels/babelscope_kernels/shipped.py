"""What a kernel module says of the configurations it launches, so that each can be compiled without a GPU."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Shipped:
    """One configuration of one Triton kernel, as it is launched on an H200."""

    name: str
    """Kernel, dtype and what else differs: a test's name."""
    kernel: Any
    """The @triton.jit function."""
    signature: Mapping[str, str]
    """Type of every argument that is not a constant: "*bf16", "*i32", "i32", "fp32" …"""
    constants: Mapping[str, Any]
    """Value of every `tl.constexpr` argument."""
    num_warps: int = 4
    num_stages: int = 3
    aligned: tuple[str, ...] = ()
    """Arguments divisible by 16 (pointers: bytes), as Triton's launcher finds them on our shapes."""
    stack: int = 0
    """Bytes of each thread's stack that may be used: those of a form that was measured faster than one without."""
    wgmma: bool = False
    """Whether the matrix product must reach Hopper's own instruction."""
