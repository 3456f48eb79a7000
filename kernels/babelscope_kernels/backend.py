"""The rule by which every kernel chooses between torch and Triton.

`"auto"` is Triton if and only if all tensors are on one CUDA device of capability ≥ 8.0, every floating tensor is
float32, float16 or bfloat16, and the kernel states no other objection; else it is torch. `"torch"` is always possible.
`"triton"` on what the rule refuses raises KernelError. With TRITON_INTERPRET=1, `"triton"` also takes CPU tensors.
"""

import logging
import os
from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor

from babelscope_kernels.errors import KernelError

Backend = Literal["auto", "torch", "triton"]
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
_log = logging.getLogger(__name__)
_told: set[tuple[str, str]] = set()


def choose(op: str, backend: str, tensors: Iterable[Tensor], *, objection: str = "") -> Literal["torch", "triton"]:
    """The backend of one call, by the rule above; each (kernel, backend) is logged once.

    Where there is no GPU it is logged for debugging only.

    tensors: all that the kernel reads or writes. objection: why this kernel cannot do these shapes, or "".
    Raises KernelError for an unknown backend, and for "triton" where the rule refuses it.
    """
    if backend not in ("auto", "torch", "triton"):
        raise KernelError(f"{op}: backend '{backend}' is unknown; give 'auto', 'torch' or 'triton'")
    if backend == "torch":
        return "torch"
    why = objection or _objection(list(tensors), forced=backend == "triton")
    if backend == "triton" and why:
        raise KernelError(f"{op}: backend 'triton' cannot run: {why}; use backend 'torch' or 'auto'")
    chosen: Literal["torch", "triton"] = "torch" if why else "triton"
    if not torch.compiler.is_compiling() and (op, chosen) not in _told:
        _told.add((op, chosen))
        # Without a GPU nobody expects a kernel.
        level = logging.INFO if torch.cuda.is_available() else logging.DEBUG
        _log.log(level, "%s runs on %s%s", op, chosen, f": {why}" if why else "")
    return chosen


def why_torch(tensors: Iterable[Tensor]) -> str:
    """Why "auto" would take torch for these tensors, by what all kernels share; "" where it would take Triton."""
    return _objection(list(tensors), forced=False)


def _objection(tensors: list[Tensor], *, forced: bool) -> str:
    devices = {tensor.device for tensor in tensors}
    if len(devices) != 1:
        return f"tensors are on {sorted(str(device) for device in devices)}, expected one device"
    for tensor in tensors:
        if tensor.is_floating_point() and tensor.dtype not in DTYPES:
            return f"dtype {tensor.dtype}, expected float32, float16 or bfloat16"
    device = devices.pop()
    if device.type == "cuda":
        index = 0 if device.index is None else device.index
        return "" if _capable(index) else f"{device} has a compute capability below 8.0"
    if device.type == "cpu" and forced and _interpreted():
        return ""
    return f"tensors are on {device}, expected a CUDA device"


def _capable(index: int) -> bool:
    return torch.version.hip is None and torch.cuda.get_device_properties(index).major >= 8


def _interpreted() -> bool:
    return os.environ.get("TRITON_INTERPRET") == "1"
