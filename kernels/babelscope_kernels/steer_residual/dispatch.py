"""Edits of the residual stream, by the backend that the rule of `backend.py` gives."""

import math

import torch
from torch import Tensor

from babelscope_kernels.backend import Backend, choose
from babelscope_kernels.errors import KernelError
from babelscope_kernels.steer_residual.autograd import Steer, edit, edit_at_once

MOST_WIDTH = 16384
"""Of a residual stream whose rows Triton holds in registers."""


def steer_residual(
    hidden: Tensor,
    vector: Tensor,
    strength: float | int | Tensor,
    *,
    kind: str,
    backend: Backend = "auto",
) -> Tensor:
    """h + s·v ("add"), or h - s·(h·q)q with q = v/|v| ("project_out": 1 removes the component, -1 doubles it).

    hidden: [..., hidden]. vector: [hidden], or one for each row [row, 1, hidden]; torch takes any that broadcasts.
    strength: a number, or a tensor that broadcasts to [..., 1]: one for each token, each row, or both. Where it is 0
    the activation comes back bit for bit, whatever the vector holds. float32 inside (float64 stays), the dtype of
    `hidden` outside. Gradients flow to all three tensors. Raises KernelError on shapes or dtypes that do not fit.
    """
    if kind not in ("add", "project_out"):
        raise KernelError(f"steer_residual: kind '{kind}' is unknown; give 'add' or 'project_out'")
    if not isinstance(strength, Tensor) and strength == 0:
        return hidden
    _check(hidden, vector, strength)
    tensors = [tensor for tensor in (hidden, vector, strength) if isinstance(tensor, Tensor)]
    chosen = choose("steer_residual", backend, tensors, objection=_objection(hidden, vector))
    if chosen == "triton" and not _needs_graph(*tensors):
        return edit_at_once(hidden, vector, strength, kind == "project_out")
    s = _as_tensor(strength, hidden)
    if kind == "project_out":
        wide = vector.to(torch.float64 if hidden.dtype == torch.float64 else torch.float32)
        vector = wide / wide.norm(dim=-1, keepdim=True)
    call = Steer.apply if _needs_graph(hidden, vector, s) else edit
    return call(hidden, vector, s, kind == "project_out", chosen)


def _needs_graph(*tensors: Tensor) -> bool:
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)


def _check(hidden: Tensor, vector: Tensor, strength: float | int | Tensor) -> None:
    if hidden.ndim < 1 or not hidden.is_floating_point():
        raise KernelError(
            f"steer_residual: hidden {hidden.dtype} {tuple(hidden.shape)}; give floating values [..., hidden]"
        )
    if isinstance(strength, Tensor):
        _broadcast("strength", strength, (*hidden.shape[:-1], 1))
    _broadcast("vector", vector, tuple(hidden.shape))


def _as_tensor(strength: float | int | Tensor, hidden: Tensor) -> Tensor:
    wide = torch.float64 if hidden.dtype == torch.float64 else torch.float32
    if not isinstance(strength, Tensor):
        return torch.full((1,) * hidden.ndim, strength, dtype=wide, device=hidden.device)
    return strength if strength.is_floating_point() else strength.to(wide)


def _broadcast(what: str, tensor: Tensor, target: tuple[int, ...]) -> None:
    pairs = zip(reversed(tensor.shape), reversed(target), strict=False)
    if tensor.ndim > len(target) or any(ours not in (1, theirs) for ours, theirs in pairs):
        raise KernelError(f"steer_residual: {what} {tuple(tensor.shape)} does not broadcast to {target}")


def _objection(hidden: Tensor, vector: Tensor) -> str:
    width = hidden.shape[-1]
    if width > MOST_WIDTH:
        return f"hidden size {width}, at most {MOST_WIDTH}"
    one = vector.shape[-1:] == (width,) and math.prod(vector.shape[:-1]) == 1
    each = hidden.ndim > 1 and vector.shape == (hidden.shape[0], *(1,) * (hidden.ndim - 2), width)
    if one or each:
        return ""
    return f"vector {tuple(vector.shape)}, expected [{width}] or [row, 1, {width}]"
