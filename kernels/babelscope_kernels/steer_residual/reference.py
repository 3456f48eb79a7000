"""The edits as their formulas read; s is one number for each token, and 0 changes nothing."""

import torch
from torch import Tensor


def steer_reference(hidden: Tensor, vector: Tensor, strength: Tensor, kind: str) -> Tensor:
    """h + s·v ("add"), or h - s·(h·q)q with q = v/|v| ("project_out")."""
    h, v, s = widened(hidden, vector, strength)
    if kind == "add":
        return (h + s * v).to(hidden.dtype)
    q = v / v.norm(dim=-1, keepdim=True)
    return (h - s * (h * q).sum(dim=-1, keepdim=True) * q).to(hidden.dtype)


def widened(hidden: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
    """All in float32, or in float64 if the activation is."""
    wide = torch.float64 if hidden.dtype == torch.float64 else torch.float32
    return tuple(tensor.to(wide) for tensor in (hidden, *others))
