"""Views of an MLP's weights, one row a neuron, whatever way its family stores them."""

from typing import Any

import torch
from einops import rearrange
from torch import nn

from babelscope.axes import Float, Float64, Int64, Tensor
from babelscope.errors import PrerequisiteError
from babelscope.models.families import Family
from babelscope.upstream.devices import fetched


def neuron_rows(layer: nn.Module, family: Family) -> dict[str, Float[Tensor, "expert neuron hidden"]]:
    """See `Layout.neuron_rows`."""
    if family.experts:
        experts: Any = layer.get_submodule(family.experts)
        gate, up = experts.gate_up_proj.chunk(2, dim=1)
        return {"gate": gate, "up": up, "down": down_rows(layer, family)}
    rows = {name: rearrange(part, "n hidden -> 1 n hidden") for name, part in _in_parts(layer, family).items()}
    return {**rows, "down": down_rows(layer, family)}


def down_rows(layer: nn.Module, family: Family) -> Float[Tensor, "expert neuron hidden"]:
    """The down projection's part of `neuron_rows`."""
    down: Any = layer.get_submodule(family.down)
    if family.experts:
        return rearrange(down.down_proj, "expert hidden n -> expert n hidden")
    return rearrange(_matrix(down), "hidden n -> 1 n hidden")


def neuron_biases(layer: nn.Module, family: Family) -> dict[str, Float[Tensor, "expert neuron"]]:
    """See `Layout.neuron_biases`."""
    if family.experts:
        return {}
    return {name: rearrange(part, "n -> 1 n") for name, part in _in_parts(layer, family, bias=True).items()}


def _in_parts(layer: nn.Module, family: Family, bias: bool = False) -> dict[str, Tensor]:
    """Weights, or biases where there are any, of the in-projections; a fused one is cut in two."""

    def read(path: str) -> Tensor | None:
        module: Any = layer.get_submodule(path)
        return module.bias if bias else _matrix(module)

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
        if family.experts or _is_plain(down):
            return rearrange(down_rows(layer, family).double().norm(dim=-1), "expert n -> (expert n)")
    return torch.cat([_applied(down, part) for part in torch.arange(inputs_of(down)).split(1024)])


@torch.no_grad()
def _applied(down: Any, neurons: Int64[Tensor, " chosen"]) -> Float64[Tensor, " chosen"]:
    """Lengths of what a packed projection gives for single neurons; its hooks do not see it."""
    weight = next(down.parameters())
    dtype = torch.float32 if down.bias is None else down.bias.dtype
    ones = torch.nn.functional.one_hot(neurons, inputs_of(down)).to(weight.device, dtype)
    return (down.forward(ones) - (0 if down.bias is None else down.bias)).double().norm(dim=-1)


def _is_plain(module: Any) -> bool:
    """Whether a projection's weight is a matrix of numbers."""
    weight: Tensor = module.weight
    return weight.is_floating_point() and weight.ndim == 2


def _matrix(module: Any) -> Float[Tensor, "out into"]:
    """A projection's weight, [out, in]; GPT-2's Conv1D stores it transposed."""
    weight = module.weight
    if not _is_plain(module):
        raise PrerequisiteError(
            f"a {type(module).__name__} with {weight.dtype} weights came; expected a plain projection; "
            "open the model without quantisation"
        )
    return rearrange(weight, "into out -> out into") if _is_conv1d(module) else weight


def inputs_of(projection: Any) -> int:
    """Width of what a projection reads; known also where its weight is packed."""
    return projection.nx if _is_conv1d(projection) else projection.in_features


def neurons_of(layer: nn.Module, family: Family) -> int:
    """Neurons of one MLP, or of one expert."""
    down: Any = layer.get_submodule(family.down)
    return down.down_proj.shape[2] if family.experts else inputs_of(down)


def _is_conv1d(module: nn.Module) -> bool:
    """GPT-2 stores its projections transposed."""
    return type(module).__name__ == "Conv1D"
