"""Where a change lies in a model: cells that are read and written by an ascending key."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import nn

from babelscope.axes import Float, Float32, Int64, Tensor
from babelscope.errors import PrerequisiteError
from babelscope.models import Layout

WRITABLE = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


class Cells(NamedTuple):
    """What is added where: a cell is a neuron's row of weights, or one element of a parameter."""

    keys: Int64[Tensor, " cell"]
    """Strictly ascending."""
    values: Float32[Tensor, "cell ..."]


@runtime_checkable
class WeightPlace(Protocol):
    """One addressable piece of a model."""

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        ...

    @property
    def device(self) -> torch.device:
        """Where values are read to; writes may come from any device."""
        ...

    def read(self, keys: Int64[Tensor, " cell"]) -> Float[Tensor, "cell ..."]:
        """A copy of the cells."""
        ...

    def write(self, keys: Int64[Tensor, " cell"], values: Float[Tensor, "cell ..."]) -> None:
        """Put values into the cells, bit for bit."""
        ...


class Cut(NamedTuple):
    """The keys of one layer."""

    layer: int
    keys: slice
    expert: Int64[Tensor, " cell"] | None
    """None where there is one."""
    neuron: Int64[Tensor, " cell"]


@dataclass(eq=False)
class NeuronIndex:
    """Finds the neurons of ascending keys; key = layer · neurons per layer + neuron."""

    n_layers: int
    n_experts: int
    d_neuron: int
    _last: tuple[Tensor, list[Cut]] | None = None

    def cut(self, keys: Int64[Tensor, " cell"]) -> list[Cut]:
        """Keys by layer; those of the last call are remembered, for all roles have the same."""
        if self._last is None or self._last[0] is not keys:
            self._last = keys, list(self._cut(keys))
        return self._last[1]

    def _cut(self, keys: Tensor) -> Iterator[Cut]:
        width = self.n_experts * self.d_neuron
        edges = torch.arange(1, self.n_layers + 1, device=keys.device) * width
        start = 0
        for layer, end in enumerate(torch.searchsorted(keys, edges).tolist()):
            if end > start:
                flat = keys[start:end] - layer * width
                expert = flat // self.d_neuron if self.n_experts > 1 else None
                yield Cut(layer, slice(start, end), expert, flat if expert is None else flat % self.d_neuron)
            start = end


@dataclass(frozen=True, eq=False)
class NeuronPlace:
    """The gate rows, up rows or down columns of every layer, by the keys of a NeuronIndex."""

    role: str
    index: NeuronIndex
    views: tuple[Float[Tensor, "expert neuron hidden"], ...]
    """By layer."""

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return self.views[0].dtype

    @property
    def device(self) -> torch.device:
        """Of layer 0."""
        return self.views[0].device

    def read(self, keys: Int64[Tensor, " cell"]) -> Float[Tensor, "cell hidden"]:
        """A copy of these neurons' rows."""
        values = torch.empty(len(keys), self.views[0].shape[2], dtype=self.dtype, device=self.device)
        for layer, cut, expert, neuron in self.index.cut(keys):
            view = self.views[layer]
            if expert is None and view.device == values.device:
                torch.index_select(view[0], 0, neuron, out=values[cut])
            else:
                values[cut] = view[0 if expert is None else expert.to(view.device), neuron.to(view.device)]
        return values

    def write(self, keys: Int64[Tensor, " cell"], values: Float[Tensor, "cell hidden"]) -> None:
        """Put values into these neurons' rows."""
        for layer, cut, expert, neuron in self.index.cut(keys):
            view = self.views[layer]
            at = (0 if expert is None else expert.to(view.device), neuron.to(view.device))
            view[at] = values[cut].to(view.device)


@dataclass(frozen=True, eq=False)
class ElementPlace:
    """One parameter, element by element; key = index into it laid flat."""

    name: str
    parameter: nn.Parameter

    def __post_init__(self) -> None:
        check_weights_writable(self.parameter.detach(), self.name)

    @property
    def dtype(self) -> torch.dtype:
        """Of the parameter."""
        return self.parameter.dtype

    @property
    def device(self) -> torch.device:
        """Of the parameter."""
        return self.parameter.device

    def read(self, keys: Int64[Tensor, " cell"]) -> Float[Tensor, " cell"]:
        """A copy of these elements."""
        return torch.take(self.parameter.detach(), keys.to(self.device))

    def write(self, keys: Int64[Tensor, " cell"], values: Float[Tensor, " cell"]) -> None:
        """Put values into these elements."""
        self.parameter.detach().put_(keys.to(self.device), values.to(self.device))


def neuron_places(layout: Layout, layers: Iterable[int]) -> Mapping[str, NeuronPlace]:
    """The places of a model's gated or plain MLPs.

    Raises PrerequisiteError for weights that cannot be written, of several dtypes, or shared by one of the layers.
    """
    rows = [layout.neuron_rows(layer) for layer in range(layout.n_layers)]
    index = NeuronIndex(layout.n_layers, max(1, layout.n_experts), layout.d_neuron)
    places = {
        role: NeuronPlace(role, index, tuple(parts[role].detach() for parts in rows))
        for role in ("gate", "up", "down")
        if role in rows[0]
    }
    for place in places.values():
        _check_place(place, set(layers))
    return places


def _check_place(place: NeuronPlace, touched: set[int]) -> None:
    owner: dict[tuple[int, torch.device], int] = {}
    for layer, view in enumerate(place.views):
        check_weights_writable(view, f"weights of {place.role} in layer {layer}")
        if view.dtype != place.dtype:
            raise PrerequisiteError(
                f"weights of {place.role} are {place.dtype} in layer 0 and {view.dtype} in layer {layer}; expected "
                "one dtype; open the model with dtype='float32' or 'bfloat16'"
            )
        owner_layer = owner.setdefault((view.data_ptr(), view.device), layer)
        if owner_layer != layer and touched & {owner_layer, layer}:
            raise PrerequisiteError(
                f"layers {owner_layer} and {layer} share the weights of {place.role}; expected weights of their own; "
                "untie them first"
            )


def check_weights_writable(weights: Tensor, what: str) -> None:
    """Raise PrerequisiteError for weights that are quantised, sharded, or not in memory."""
    if type(weights) is not torch.Tensor or weights.dtype not in WRITABLE:
        raise PrerequisiteError(
            f"{what} are {type(weights).__name__} of {weights.dtype}; expected plain float32, bfloat16, float16 or "
            "float64; open the model unquantised"
        )
    if weights.is_meta:
        raise PrerequisiteError(f"{what} are not in memory; expected them on a device; open the model without offload")
