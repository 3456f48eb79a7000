"""The trained rows of a model: float32 masters, their gradients, and where in the model each row lies."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
from babelscope_kernels.rows_adamw.targets import RowTargets

from babelscope.artifacts import NeuronSet
from babelscope.axes import Float32, Int64, Tensor
from babelscope.errors import ArtifactError, PrerequisiteError, SelectionError
from babelscope.models import Layout, check_made_for
from babelscope.subnetworks.places import neuron_places

BYTES_A_VALUE = 16
"""Of gradient and optimizer state: float32 master, gradient and two moments."""


class Part(NamedTuple):
    """One kind of weight of one layer's chosen neurons, inside the flat masters."""

    layer: int
    role: str
    """"gate", "up" or "down"."""
    rows: slice
    expert: Int64[Tensor, " neuron"]
    neuron: Int64[Tensor, " neuron"]


@dataclass(frozen=True, eq=False)
class Bank:
    """All trained rows, layer after layer, in each layer gate, up, down; a row is one neuron's weights."""

    layout: Layout
    neurons: NeuronSet
    """One language's set."""
    parts: tuple[Part, ...]
    master: Float32[Tensor, "row hidden"]
    grad: Float32[Tensor, "row hidden"]
    """Gradients are added here, so that accumulation costs nothing."""
    base: Float32[Tensor, "row hidden"]
    """The model's own values; decay goes towards them, and they come back bit for bit."""

    @classmethod
    def of(cls, layout: Layout, neurons: NeuronSet) -> "Bank":
        """Read the rows of a set from the model.

        Raises SelectionError for an empty set or one of several languages, ArtifactError for a set of another model,
        PrerequisiteError for weights that cannot be trained in place.
        """
        check_set(layout, neurons)
        neuron_places(layout, neurons.layer_counts[0].nonzero()[:, 0].tolist())
        parts, masters, start = [], [], 0
        for layer in range(layout.n_layers):
            chosen = neurons.layer_of(0, layer).long()
            if not len(chosen):
                continue
            expert, neuron = chosen // layout.d_neuron, chosen % layout.d_neuron
            for role, rows in layout.neuron_rows(layer).items():
                device = rows.device
                part = Part(layer, role, slice(start, start + len(chosen)), expert.to(device), neuron.to(device))
                parts.append(part)
                masters.append(rows.detach()[part.expert, part.neuron].float())
                start += len(chosen)
        devices = {rows.device for rows in masters}
        if len(devices) > 1:
            raise PrerequisiteError(
                f"the trained layers are on {', '.join(sorted(map(str, devices)))}; expected one device; "
                "open the model with device='cuda:0' or 'cpu'"
            )
        base = torch.cat(masters)
        return cls(layout, neurons, tuple(parts), base.clone(), torch.zeros_like(base), base)

    @property
    def layers(self) -> tuple[int, ...]:
        """Layers with a trained neuron, ascending."""
        return tuple(sorted({part.layer for part in self.parts}))

    @property
    def trained(self) -> int:
        """Trained values."""
        return self.master.numel()

    @property
    def rms(self) -> float:
        """Root mean square of the trained values as the model has them."""
        return float(self.base.double().square().mean().sqrt())

    def part(self, layer: int, role: str) -> Part:
        """Rows of one kind in one layer."""
        return next(part for part in self.parts if part.layer == layer and part.role == role)

    def span(self, layer: int) -> slice:
        """Rows of one layer, all kinds."""
        layer_parts = [part for part in self.parts if part.layer == layer]
        return slice(layer_parts[0].rows.start, layer_parts[-1].rows.stop)

    def targets(self) -> RowTargets:
        """The model's own rows in the bank's order, for the optimizer to write to; dense MLPs only."""
        views = [self.layout.neuron_rows(part.layer)[part.role].detach()[0] for part in self.parts]
        return RowTargets(views, [part.neuron for part in self.parts])

    def nowhere(self) -> RowTargets:
        """Rows outside the model, for a form that runs from the masters."""
        return RowTargets([torch.empty_like(self.master)], [torch.arange(len(self.master), device=self.master.device)])

    def changes(self) -> dict[str, Float32[Tensor, "neuron hidden"]]:
        """Master minus base by role, a row per neuron, in the order of the set's indices."""
        change = self.master - self.base
        roles = dict.fromkeys(part.role for part in self.parts)
        return {role: torch.cat([change[part.rows] for part in self.parts if part.role == role]) for role in roles}

    @torch.no_grad()
    def write(self, values: Float32[Tensor, "row hidden"]) -> None:
        """Put values into the model's rows, in its dtype; nothing else of the model is touched."""
        for part in self.parts:
            rows = self.layout.neuron_rows(part.layer)[part.role]
            rows[part.expert, part.neuron] = values[part.rows].to(rows.dtype)

    @contextmanager
    def borrowed(self) -> Iterator[None]:
        """While open the model may be changed in the bank's rows; after it they hold the base again, bit for bit."""
        try:
            yield
        finally:
            self.write(self.base)


def check_set(layout: Layout, neurons: NeuronSet) -> None:
    """Raise unless a set has one language, is not empty, and fits the model."""
    if len(neurons.languages) != 1:
        raise SelectionError(
            f"a set of {len(neurons.languages)} languages came; expected one; take that of a language, as sets['fi']"
        )
    if not len(neurons.indices):
        raise SelectionError(
            f"the set of {neurons.languages[0]} is empty; expected at least one neuron; select with a larger top_rate"
        )
    # What stands in a weight's place also makes another model: the way out of the former is the one to say.
    chosen = neurons.layer_counts[0].nonzero()[:, 0].tolist()
    neuron_places(layout, [layer for layer in chosen if layer < layout.n_layers])
    check_made_for(neurons.origin, layout.model, None, f"set of {neurons.languages[0]}")
    if (neurons.n_layers, neurons.n_neurons) != (layout.n_layers, layout.width("mlp_gate")):
        raise ArtifactError(
            f"set of {neurons.n_layers} layers of {neurons.n_neurons} neurons; expected {layout.n_layers} of "
            f"{layout.width('mlp_gate')} as in this model; the set is for another one"
        )
