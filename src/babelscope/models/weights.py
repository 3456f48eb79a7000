"""Views of an MLP's weights, one row a neuron, whatever way its family stores them."""

from einops import rearrange
from torch import nn

from babelscope.axes import Float, Tensor
from babelscope.models.families import Family


def neuron_rows(layer: nn.Module, family: Family) -> dict[str, Float[Tensor, "expert neuron hidden"]]:
    """See `Layout.neuron_rows`."""
    if family.experts:
        experts = layer.get_submodule(family.experts)
        gate, up = experts.gate_up_proj.chunk(2, dim=1)
        return {"gate": gate, "up": up, "down": rearrange(experts.down_proj, "expert hidden n -> expert n hidden")}
    rows = {name: rearrange(part, "n hidden -> 1 n hidden") for name, part in _in_parts(layer, family).items()}
    return {**rows, "down": rearrange(_matrix(layer.get_submodule(family.down)), "hidden n -> 1 n hidden")}


def neuron_biases(layer: nn.Module, family: Family) -> dict[str, Float[Tensor, "expert neuron"]]:
    """See `Layout.neuron_biases`."""
    if family.experts:
        return {}
    return {name: rearrange(part, "n -> 1 n") for name, part in _in_parts(layer, family, bias=True).items()}


def _in_parts(layer: nn.Module, family: Family, bias: bool = False) -> dict[str, Tensor]:
    """Weights, or biases where there are any, of the in-projections; a fused one is cut in two."""

    def read(path: str) -> Tensor | None:
        module = layer.get_submodule(path)
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


def _matrix(module: nn.Module) -> Float[Tensor, "out into"]:
    """A projection's weight, [out, in]; GPT-2's Conv1D stores it transposed."""
    return rearrange(module.weight, "into out -> out into") if is_conv1d(module) else module.weight


def is_conv1d(module: nn.Module) -> bool:
    """GPT-2 stores its projections transposed."""
    return type(module).__name__ == "Conv1D"
