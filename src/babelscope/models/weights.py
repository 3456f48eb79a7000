"""Views of an MLP's weights, one row per neuron, whatever way its family stores them."""

from typing import Any, cast

import torch
from einops import rearrange
from torch import nn

from babelscope.axes import Float, Float64, Int64, Tensor
from babelscope.errors import PrerequisiteError
from babelscope.models.device_placement import device_of, quantised_parameters
from babelscope.models.family import Family
from babelscope.models.modes import eval_mode
from babelscope.models.plain import foreign_hooks, objection, plain_weight
from babelscope.upstream.devices import fetched
from babelscope.upstream.kinds import conv1d


def neuron_rows(layer: nn.Module, family: Family) -> dict[str, Float[Tensor, "expert neuron hidden"]]:
    """See `Layout.neuron_rows`."""
    if family.experts:
        fused = plain_weight(layer.get_submodule(family.experts), "gate_up_proj", what=family.experts)
        if family.interleaved:
            gate_and_up = rearrange(fused, "expert hidden n -> expert n hidden")
            gate, up = gate_and_up[:, ::2], gate_and_up[:, 1::2]
        else:
            gate, up = fused.chunk(2, dim=1)
        return {"gate": gate, "up": up, "down": down_rows(layer, family)}
    rows = {name: rearrange(part, "n hidden -> 1 n hidden") for name, part in _in_parts(layer, family).items()}
    return {**rows, "down": down_rows(layer, family)}


def down_rows(layer: nn.Module, family: Family) -> Float[Tensor, "expert neuron hidden"]:
    """The down projection's part of `neuron_rows`."""
    down: Any = layer.get_submodule(family.down)
    if family.experts:
        fused = plain_weight(down, "down_proj", what=family.down)
        return fused if family.interleaved else rearrange(fused, "expert hidden n -> expert n hidden")
    return rearrange(_matrix(down, family.down), "hidden n -> 1 n hidden")


def neuron_biases(layer: nn.Module, family: Family) -> dict[str, Float[Tensor, "expert neuron"]]:
    """See `Layout.neuron_biases`."""
    if family.experts:
        experts: Any = layer.get_submodule(family.experts)
        gate_and_up: Any = experts.gate_up_proj_bias if family.interleaved else None
        return {} if gate_and_up is None else {"gate": gate_and_up[:, ::2], "up": gate_and_up[:, 1::2]}
    return {name: rearrange(part, "n -> 1 n") for name, part in _in_parts(layer, family, bias=True).items()}


def _in_parts(layer: nn.Module, family: Family, bias: bool = False) -> dict[str, Tensor]:
    """Weights, or biases where there are any, of the in-projections; a fused one is cut in two."""

    def read(path: str) -> Tensor | None:
        module: Any = layer.get_submodule(path)
        weight = _matrix(module, path)
        return module.bias if bias else weight

    up = read(family.up)
    if up is None:
        return {}
    if not family.gate:
        return {"up": up}
    if family.gate == family.up:
        return dict(zip(("gate", "up"), up.chunk(2, dim=0), strict=True))
    gate = read(family.gate)
    return {"up": up} if gate is None else {"gate": gate, "up": up}


def down_lengths(layer: nn.Module, family: Family) -> Float64[Tensor, " neuron"]:
    """See `Layout.down_norm`."""
    down: Any = layer.get_submodule(family.down)
    with fetched(down), torch.no_grad():
        if family.experts or objection(down) is None:
            return rearrange(down_rows(layer, family).double().norm(dim=-1), "expert n -> (expert n)")
    chosen = torch.arange(inputs_of(down)).split(1024)
    return torch.cat([applied(down, part, family.down).double().norm(dim=-1) for part in chosen])


@torch.no_grad()
def applied(
    projection: Any, inputs: Int64[Tensor, " chosen"], what: str = "a projection"
) -> Float[Tensor, "chosen out"]:
    """What a projection gives for single inputs of 1, its bias taken off: the columns of the map that it really is.

    It holds for whatever stands there, packed, adapted or wrapped, and is what its module computes in eval mode.
    Raises PrerequisiteError where that is no linear map, or hooks of others, which are passed by, may change it.
    """
    hooks = foreign_hooks(projection)
    if hooks:
        raise PrerequisiteError(
            f"{what}: hooks that others put there ({', '.join(hooks)}) may change what it gives; expected none; remove "
            "them first"
        )
    # A weight that is made anew at each pass is no parameter, but a plain attribute.
    tensor_attributes = [value for value in vars(projection).values() if isinstance(value, torch.Tensor)]
    tensors = [*projection.parameters(), *projection.buffers(), *tensor_attributes]
    width, device = inputs_of(projection), device_of(projection) if list(projection.parameters()) else tensors[0].device
    floats = [tensor.dtype for tensor in tensors if tensor.is_floating_point() and tensor.dtype.itemsize > 1]
    dtype = floats[0] if floats else torch.float32
    one_hot = torch.nn.functional.one_hot(inputs, width).to(device, dtype)
    with eval_mode(projection):
        at_zero = projection.forward(torch.zeros_like(one_hot[:1]))
        columns = projection.forward(one_hot) - at_zero
        if not quantised_parameters(projection):
            _check_linear(projection, at_zero, columns, what)
    return columns


def _check_linear(projection: Any, at_zero: Tensor, columns: Tensor, what: str) -> None:
    """Three times the first input alone must give three times its column."""
    probe = torch.zeros(1, inputs_of(projection), dtype=columns.dtype, device=columns.device)
    width = min(len(columns), probe.shape[1])
    probe[0, :width] = 3.0
    sums = 3 * columns[:width].float().sum(dim=0)
    gap = (projection.forward(probe) - at_zero).float() - sums
    if len(columns) == probe.shape[1] and float(gap.norm()) > 0.05 * float(sums.norm()) + 1e-6:
        raise PrerequisiteError(
            f"{what} is a {type(projection).__name__} that is no linear map; weights by neuron need one; put back the "
            "projection that it wraps"
        )


def _matrix(module: Any, what: str) -> Float[Tensor, "out into"]:
    """A projection's weight, [out, in]; GPT-2's Conv1D stores it transposed."""
    weight = plain_weight(module, what=what)
    return rearrange(weight, "into out -> out into") if isinstance(module, conv1d()) else weight


def inputs_of(projection: Any) -> int:
    """Width of what a projection reads; known also where its weight is packed, or another module wraps it."""
    linear_maps = [module for module in projection.modules() if isinstance(module, nn.Linear | conv1d())]
    if hasattr(projection, "in_features"):
        return int(projection.in_features)
    if len(linear_maps) == 1:
        return cast(int, linear_maps[0].nx if isinstance(linear_maps[0], conv1d()) else linear_maps[0].in_features)
    raise PrerequisiteError(
        f"a {type(projection).__name__} stands in the place of a projection, and says nothing of its width; expected "
        "in_features, or one nn.Linear inside; put back the projection that it wraps"
    )


def neurons_of(layer: nn.Module, family: Family) -> int:
    """Neurons of one MLP, or of one expert."""
    down: Any = layer.get_submodule(family.down)
    if family.experts:
        return plain_weight(down, "down_proj", what=family.down).shape[1 if family.interleaved else 2]
    return inputs_of(down)


def experts_of(layer: nn.Module, family: Family) -> int:
    """Experts of a layer; 0 in a dense model."""
    if not family.experts:
        return 0
    return len(plain_weight(layer.get_submodule(family.experts), "gate_up_proj", what=family.experts))
