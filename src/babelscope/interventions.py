"""Pure functions activation → activation.

All compute in float32 (float64 stays float64), return the dtype they were given, and write into nothing. A strength is
one number, or a tensor that broadcasts over the units (`[batch, token, 1]`). Where it is 0 the activation comes back
bit for bit, whatever the vector holds: those places are taken from the input, not computed.
"""

from collections.abc import Callable

import torch

from babelscope.axes import Float, Int, Int64, Tensor

Strength = float | int | Tensor
Change = Callable[[Tensor, Tensor, Strength], Tensor]
"""Activation, vector, strength → activation."""


def _compute(value: Tensor, vector: Tensor) -> tuple[Tensor, Tensor]:
    dtype = torch.float64 if value.dtype == torch.float64 else torch.float32
    return value.to(dtype), vector.to(dtype)


def _kept(value: Tensor, new: Tensor, strength: Strength) -> Tensor:
    """`new` in the dtype of `value`, except where strength is 0."""
    cast = new.to(value.dtype)
    return torch.where(strength != 0, cast, value) if isinstance(strength, Tensor) else cast


def _off(strength: Strength) -> bool:
    return not isinstance(strength, Tensor) and strength == 0


def add(
    value: Float[Tensor, "*batch unit"], vector: Float[Tensor, "*#batch unit"], strength: Strength
) -> Float[Tensor, "*batch unit"]:
    """x + s·v."""
    if _off(strength):
        return value
    x, v = _compute(value, vector)
    if isinstance(strength, Tensor):
        return _kept(value, torch.addcmul(x, strength.to(x.dtype), v), strength)
    return _kept(value, torch.add(x, v, alpha=strength), strength)


def replace(
    value: Float[Tensor, "*batch unit"], vector: Float[Tensor, "*#batch unit"], strength: Strength
) -> Float[Tensor, "*batch unit"]:
    """x + s·(v - x); exactly v at s = 1."""
    if _off(strength):
        return value
    x, v = _compute(value, vector)
    return _kept(value, _blend(x, v.expand_as(x), strength), strength)


def scale(
    value: Float[Tensor, "*batch unit"], vector: Float[Tensor, "*#batch unit"], strength: Strength
) -> Float[Tensor, "*batch unit"]:
    """x + s·(v·x - x); exactly v·x at s = 1."""
    if _off(strength):
        return value
    x, v = _compute(value, vector)
    return _kept(value, _blend(x, v * x, strength), strength)


def project_out(
    value: Float[Tensor, "*batch unit"], vector: Float[Tensor, "*#batch unit"], strength: Strength
) -> Float[Tensor, "*batch unit"]:
    """x - s·(x·q)q with q = v/|v|; s = 1 removes the component along v, s = -1 doubles it."""
    if _off(strength):
        return value
    x, v = _compute(value, vector)
    q = v / v.norm(dim=-1, keepdim=True)
    along = (x * q).sum(dim=-1, keepdim=True)
    weight = strength.to(x.dtype) if isinstance(strength, Tensor) else strength
    return _kept(value, x - weight * along * q, strength)


def _blend(x: Tensor, new: Tensor, strength: Strength) -> Tensor:
    """x at 0, `new` at 1, both exactly."""
    return torch.lerp(x, new, strength.to(x.dtype) if isinstance(strength, Tensor) else float(strength))


CHANGES: dict[str, Change] = {"add": add, "replace": replace, "scale": scale, "project_out": project_out}
"""By the kind of an operation."""


def at_units(
    change: Change,
    value: Float[Tensor, "*batch unit"],
    indices: Int64[Tensor, " chosen"],
    vector: Float[Tensor, "*#batch chosen"],
    strength: Strength,
) -> Float[Tensor, "*batch unit"]:
    """Apply a change to some units only, which must all be different; the others come back bit for bit."""
    if _off(strength):
        return value
    return value.index_copy(-1, indices, change(value.index_select(-1, indices), vector, strength))


def at_experts(
    change: Change,
    value: Float[Tensor, "batch token top_k neuron"],
    routes: Int[Tensor, "batch token top_k"],
    vector: Float[Tensor, "expert neuron"],
    chosen: Tensor,
    strength: Strength,
) -> Float[Tensor, "batch token top_k neuron"]:
    """Apply a change to neurons of a mixture of experts, each row with its own expert's part of the vector.

    routes: expert of each row. chosen: boolean [expert, neuron], True where the change applies.
    """
    if _off(strength):
        return value
    return torch.where(chosen[routes], change(value, vector[routes], strength), value)
