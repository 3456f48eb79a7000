"""How much two deltas change the same weights, and whether they pull them the same way."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

from babelscope.axes import Float32, Tensor
from babelscope.errors import ArtifactError
from babelscope.subnetworks.delta import Delta
from babelscope.subnetworks.elements import ElementDelta

Change = TypeVar("Change", Delta, ElementDelta)


@dataclass(frozen=True)
class SharedCells:
    """Neurons that two deltas share."""

    rows: tuple[int, int]
    """Neurons of each."""
    shared: int
    """Neurons of both."""
    shared_by_chance: float
    """Expected of random neurons, as many in each layer: Σ_l a_l · b_l / n_neurons."""
    layer_shared: tuple[int, ...]
    """Neurons of both, by layer."""
    cosine: Mapping[str, float]
    """By role, between the changes of the shared neurons, all rows as one vector; NaN where none is shared."""

    @property
    def jaccard(self) -> float:
        """Shared over all; NaN for two empty deltas."""
        union = sum(self.rows) - self.shared
        return self.shared / union if union else float("nan")


def shared_cells(a: Delta, b: Delta) -> SharedCells:
    """Neurons that both change, beside chance, and the angle between their changes, in float64.

    Raises ArtifactError for deltas of different models.
    """
    a.origin.check_same(b.origin, "overlap of deltas")
    if (a.n_layers, a.n_neurons, a.up.shape[1], set(a.rows)) != (b.n_layers, b.n_neurons, b.up.shape[1], set(b.rows)):
        raise ArtifactError(
            f"overlap of deltas of {a.n_layers} × {a.n_neurons} and {b.n_layers} × {b.n_neurons} neurons; "
            "expected one shape; take deltas of one model"
        )
    shared_in_a, shared_in_b = torch.isin(a.keys, b.keys), torch.isin(b.keys, a.keys)
    by_layer = torch.bincount(a.keys[shared_in_a] // a.n_neurons, minlength=a.n_layers)
    return SharedCells(
        rows=(len(a.indices), len(b.indices)),
        shared=int(shared_in_a.sum()),
        shared_by_chance=float((a.layer_counts * b.layer_counts).sum() / a.n_neurons),
        layer_shared=tuple(by_layer.tolist()),
        cosine={role: cosine(rows[shared_in_a], b.rows[role][shared_in_b]) for role, rows in a.rows.items()},
    )


@dataclass(frozen=True)
class ElementOverlap:
    """Values that two element deltas share."""

    values: tuple[int, int]
    """Changed values of each."""
    shared: int
    """Values of both."""
    shared_by_chance: float
    """Expected of random values, as many in each parameter: Σ a · b / size."""
    cosine: float
    """Between the changes of the shared values; NaN where none is shared."""

    @property
    def jaccard(self) -> float:
        """Shared over all; NaN for two empty deltas."""
        union = sum(self.values) - self.shared
        return self.shared / union if union else float("nan")


def element_overlap(a: ElementDelta, b: ElementDelta) -> ElementOverlap:
    """Values that both change, beside chance, and the angle between their changes, in float64.

    Raises ArtifactError for deltas of different models.
    """
    a.origin.check_same(b.origin, "overlap of element deltas")
    values_of_a, values_of_b, chance = [torch.zeros(0)], [torch.zeros(0)], 0.0
    for name in sorted(a.elements.keys() & b.elements.keys()):
        part_of_a, part_of_b = a.elements[name], b.elements[name]
        values_of_a.append(part_of_a.values[torch.isin(part_of_a.indices, part_of_b.indices)])
        values_of_b.append(part_of_b.values[torch.isin(part_of_b.indices, part_of_a.indices)])
        chance += len(part_of_a.indices) * len(part_of_b.indices) / math.prod(part_of_a.shape)
    shared = torch.cat(values_of_a)
    return ElementOverlap((a.n_values, b.n_values), len(shared), chance, cosine(shared, torch.cat(values_of_b)))


def cosine(a: Float32[Tensor, "*shape"], b: Float32[Tensor, "*shape"]) -> float:
    """Between two changes laid flat, in float64; NaN where one is empty or zero."""
    a, b = a.double().flatten(), b.double().flatten()
    length = float(a.norm() * b.norm())
    return float(a @ b) / length if length else float("nan")


def without_mean(change: Change, general: Sequence[Change]) -> Change:
    """A change minus the mean of others, worked out in float32 over the union of their values."""
    mean = general[0]
    for change_of_general in general[1:]:
        mean = mean + change_of_general
    return change - mean * (1 / len(general))
