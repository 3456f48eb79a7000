"""The definition of right: one step of AdamW whose decay pulls towards base values."""

from typing import NamedTuple

from torch import Tensor


class Stepped(NamedTuple):
    """What one step leaves."""

    masters: Tensor
    moments1: Tensor
    moments2: Tensor


def rows_adamw_reference(
    masters: Tensor,
    grads: Tensor,
    moments1: Tensor,
    moments2: Tensor,
    *,
    base: Tensor | None,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    decay: float,
    step: int,
) -> Stepped:
    """θ ← θ − lr·decay·(θ − base);  m ← β₁m + (1−β₁)g;  v ← β₂v + (1−β₂)g²;  θ ← θ − lr·m̂ / (√v̂ + eps)."""
    pulled = masters - lr * decay * (masters if base is None else masters - base)
    first = betas[0] * moments1 + (1 - betas[0]) * grads
    second = betas[1] * moments2 + (1 - betas[1]) * grads.square()
    mean, spread = first / (1 - betas[0] ** step), second / (1 - betas[1] ** step)
    return Stepped(pulled - lr * mean / (spread.sqrt() + eps), first, second)
