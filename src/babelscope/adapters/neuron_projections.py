"""Which rows and columns of a dense model's projections are some neurons' weights, by module name."""

from collections.abc import Iterator
from typing import NamedTuple

import torch

from babelscope.axes import Int64, Tensor
from babelscope.models import Layout


class NeuronProjection(NamedTuple):
    """The weights of some neurons of one layer that lie in one projection."""

    layer: int
    module: str
    roles: tuple[str, ...]
    """Whose weights `places` are, in this order; gate and up where one projection holds both."""
    places: Int64[Tensor, " place"]
    """Outputs of the projection (gate, up), or its inputs (down)."""
    width: int
    """How many outputs, or inputs, it has."""

    @property
    def at_inputs(self) -> bool:
        """Whether places are inputs of the projection."""
        return self.roles == ("down",)


def projections_of(layout: Layout, layer: int, neurons: Int64[Tensor, " neuron"]) -> Iterator[NeuronProjection]:
    """The projections of one layer of a dense MLP: gate and up, then down."""
    family, width = layout.family, layout.d_neuron
    prefix = f"{family.layers}.{layer}."
    if family.gate and family.gate == family.up:
        gate_and_up = torch.cat([neurons, width + neurons])
        yield NeuronProjection(layer, prefix + family.up, ("gate", "up"), gate_and_up, 2 * width)
    else:
        for role in ("gate", "up") if family.gate else ("up",):
            yield NeuronProjection(layer, prefix + getattr(family, role), (role,), neurons, width)
    yield NeuronProjection(layer, prefix + family.down, ("down",), neurons, width)
