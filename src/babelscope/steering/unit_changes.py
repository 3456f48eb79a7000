"""A change of any kind made ready for where it applies: with its matrix or features, on some units, on experts."""

import torch

from babelscope.axes import Float, Int, Int64, Tensor
from babelscope.feature_map import FeatureMap
from babelscope.interventions import KINDS, Change, Strength, is_off


def change_of(name: str, matrix: Tensor | None = None, features: FeatureMap | None = None) -> Change:
    """The change of any kind of operation, its matrix or features filled in."""
    entry, part = KINDS[name], matrix if features is None else features
    if not entry.needs:
        return entry.act
    return lambda value, vector, strength: entry.act(value, vector, part, strength)


def at_units(
    change: Change,
    value: Float[Tensor, "*batch unit"],
    indices: Int64[Tensor, " chosen"],
    vector: Float[Tensor, "*#batch chosen"],
    strength: Strength,
) -> Float[Tensor, "*batch unit"]:
    """Apply a change to some units only, which must all be different; the others come back bit for bit."""
    if is_off(strength):
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
    if is_off(strength):
        return value
    return torch.where(chosen[routes], change(value, vector[routes], strength), value)
