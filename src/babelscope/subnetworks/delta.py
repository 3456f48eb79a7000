"""A trained subnetwork: what was added to some neurons' weights, in float32; it goes into a model and out again."""

import hashlib
import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from babelscope.artifacts import NeuronSet, Origin
from babelscope.artifacts.hub import HubArtifact
from babelscope.artifacts.shown import shown_by
from babelscope.artifacts.storage import open_folder, origin_config, save_folder, write_card
from babelscope.axes import Float32, Int32, Int64, Tensor
from babelscope.errors import ArtifactError, SelectionError
from babelscope.languages import Language
from babelscope.models import Layout, check_made_for, layout_of
from babelscope.models.plain import CausalModel
from babelscope.subnetworks.applied import applied_change, apply_change, cast_loss, revert_change
from babelscope.subnetworks.places import Cells, NeuronPlace, neuron_places
from babelscope.subnetworks.rounding import CastLoss

NOUN = "Delta"
ROLES = ("gate", "up", "down")


@dataclass(frozen=True, eq=False)
class Delta(HubArtifact):
    """The change of some neurons' weights, trained minus base, layer after layer, neurons ascending.

    Neurons of layer l: `indices[offsets[l] : offsets[l + 1]]`; row i of `gate`, `up`, `down` is neuron `indices[i]`'s.
    `a + b`, `a - b`, `-a` and `2 * a` are deltas over the union of the rows, worked out in float32.
    """

    __repr__ = shown_by("origin.model", "languages", "indices", "n_values")

    origin: Origin
    languages: tuple[Language, ...]
    """What it was trained for; those of all parts where it is composed."""
    n_neurons: int
    """Neurons a layer (experts times their width in an MoE)."""
    offsets: Int64[Tensor, " layer_plus_one"]
    indices: Int32[Tensor, " selected"]
    up: Float32[Tensor, "selected hidden"]
    down: Float32[Tensor, "selected hidden"]
    """Columns of the down projection, one row per neuron."""
    gate: Float32[Tensor, "selected hidden"] | None = None
    """None in a plain MLP."""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """How it was trained, and the figures it ended with; never text."""

    def __post_init__(self) -> None:
        offsets, indices = self.offsets, self.indices
        if offsets.ndim != 1 or len(offsets) < 2 or int(offsets[0]) != 0 or int(offsets[-1]) != len(indices):
            raise ArtifactError(
                f"offsets {list(offsets.shape)} do not cut {len(indices)} indices into layers; the delta is damaged"
            )
        if len(indices) and not (int(indices.min()) >= 0 and int(indices.max()) < self.n_neurons):
            raise ArtifactError(f"a neuron is out of range; expected 0–{self.n_neurons - 1}; the delta is damaged")
        if bool((offsets.diff() < 0).any()) or bool((self.keys.diff() <= 0).any()):
            raise ArtifactError("indices are not strictly ascending in every layer; the delta is damaged")
        for role, rows in self.rows.items():
            if rows.dtype != torch.float32 or rows.shape != (len(indices), self.up.shape[-1]):
                raise ArtifactError(
                    f"{role} is {rows.dtype} {list(rows.shape)}; expected float32, {len(indices)} rows as wide as up"
                )
            if not bool(torch.isfinite(rows).all()):
                raise ArtifactError(f"{role} of the delta holds NaN or infinity; expected finite values; train again")

    @classmethod
    def of(
        cls, neurons: NeuronSet, changes: Mapping[str, Tensor], *, parameters: Mapping[str, Any] | None = None
    ) -> "Delta":
        """The change of one language's neurons; `changes` has a row per neuron, in the order of the set's indices.

        Raises SelectionError for a set of several languages.
        """
        if len(neurons.languages) != 1:
            raise SelectionError(
                f"a set of {len(neurons.languages)} languages came; expected one; take sets['{neurons.languages[0]}']"
            )
        rows = {role: change.detach().to("cpu", torch.float32, copy=True) for role, change in changes.items()}
        return cls(
            origin=neurons.origin,
            languages=neurons.languages,
            n_neurons=neurons.n_neurons,
            offsets=neurons.offsets[0] - neurons.offsets[0, 0],
            indices=neurons.indices.clone(),
            parameters=dict(parameters or {}),
            **rows,
        )

    @property
    def n_layers(self) -> int:
        """Layers of the model."""
        return len(self.offsets) - 1

    @property
    def layer_counts(self) -> Int64[Tensor, " layer"]:
        """Neurons in each layer."""
        return self.offsets.diff()

    @property
    def layers(self) -> tuple[int, ...]:
        """Layers that it touches."""
        return tuple(self.layer_counts.nonzero()[:, 0].tolist())

    @property
    def rows(self) -> dict[str, Float32[Tensor, "selected hidden"]]:
        """The changes by role."""
        by_role = {role: getattr(self, role) for role in ROLES}
        return {role: rows for role, rows in by_role.items() if rows is not None}

    @property
    def n_values(self) -> int:
        """Trained values."""
        return sum(rows.numel() for rows in self.rows.values())

    @property
    def changes_values(self) -> bool:
        """Whether any trained value is another than before."""
        return any(bool(rows.any()) for rows in self.rows.values())

    @cached_property
    def keys(self) -> Int64[Tensor, " selected"]:
        """layer · n_neurons + neuron, of each row."""
        layer = torch.repeat_interleave(torch.arange(self.n_layers), self.layer_counts)
        return layer * self.n_neurons + self.indices

    def layer_of(self, layer: int) -> tuple[Int32[Tensor, " _"], dict[str, Float32[Tensor, "_ hidden"]]]:
        """Neurons of a layer, and their changes."""
        cut = slice(int(self.offsets[layer]), int(self.offsets[layer + 1]))
        return self.indices[cut], {role: rows[cut] for role, rows in self.rows.items()}

    @property
    def title(self) -> str:
        """For messages."""
        return f"delta of {' + '.join(self.languages) or 'no language'}"

    @property
    def digest(self) -> str:
        """blake2b of what it changes; deltas of equal digest are the same change."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        digest = hashlib.blake2b(f"{self.origin.model_hash} {self.n_neurons}".encode(), digest_size=8)
        for tensor in (self.offsets, self.indices, *self.rows.values()):
            digest.update(tensor.contiguous().numpy().data)
        return digest.hexdigest()

    def check(self, model: CausalModel) -> None:
        """Raise ArtifactError unless it was trained on this model, by the hash of its config and its shape."""
        self._check(layout_of(model))

    def _check(self, layout: Layout) -> None:
        check_made_for(self.origin, layout.model, None, self.title)
        expected = (layout.n_layers, layout.width("mlp_gate"), layout.d_hidden, layout.gated)
        if (self.n_layers, self.n_neurons, self.up.shape[1], self.gate is not None) != expected:
            raise ArtifactError(
                f"{self.title}: {self.n_layers} layers of {self.n_neurons} neurons, {', '.join(self.rows)} of "
                f"{self.up.shape[1]}; expected {expected[0]} of {expected[1]}, width {expected[2]}; it is for another "
                "model"
            )

    def apply(self, model: CausalModel, scale: float | int = 1.0) -> int:
        """Add scale times the change to the model in place; returns the bytes written.

        After any applies and reverts each touched weight is cast(base + Σ scale · change), summed in float64 in an
        order of its own, cast to the model's dtype; the base is kept once for all of them. Reverting all brings the
        model back bit for bit. All or nothing.
        Raises ArtifactError if it is applied already or for another model, PrerequisiteError for weights that are
        quantised, shared or not in memory, MeasurementError where they were changed since, or leave the dtype's range.
        """
        return apply_change(model, self, scale)

    def revert(self, model: CausalModel) -> int:
        """Take the change out again; returns the bytes written. Raises ArtifactError if the model does not hold it."""
        return revert_change(model, self)

    def applied(self, model: CausalModel, scale: float | int = 1.0) -> AbstractContextManager[None]:
        """While open the model holds the change."""
        return applied_change(model, self, scale)

    def cast_loss(self, model: CausalModel, scale: float | int = 1.0, *, dtype: torch.dtype | None = None) -> CastLoss:
        """What rounding takes of scale times the change in the model's weights; nothing is written.

        dtype: what the weights would be cast to; None is the model's own. Raises as `apply` does.
        """
        return cast_loss(model, self, scale, dtype)[0]

    def rounded(self, model: CausalModel, dtype: torch.dtype) -> "Delta":
        """What is left of the change where the model's weights are cast to a dtype: to measure what rounding costs."""
        moves = cast_loss(model, self, 1.0, dtype)[1]
        return replace(self, **{role: move.float().cpu() for role, move in moves.items()})

    def cells(self) -> dict[str, Cells]:
        """What is added, by role."""
        return {role: Cells(self.keys, rows) for role, rows in self.rows.items()}

    def places(self, model: CausalModel, *, applied: bool = False) -> Mapping[str, NeuronPlace]:
        """Its places in a model, which is checked unless it holds the delta."""
        layout = layout_of(model)
        if not applied:
            self._check(layout)
        return neuron_places(layout, self.layers)

    def storages(self, model: CausalModel) -> set[int]:
        """Addresses of the parameters that it touches."""
        layout = layout_of(model)
        views = [rows for layer in self.layers for rows in layout.neuron_rows(layer).values()]
        return {rows.untyped_storage().data_ptr() for rows in views}

    def __add__(self, other: "Delta") -> "Delta":
        return _composed(self, other)

    def __mul__(self, factor: float | int) -> "Delta":
        if not math.isfinite(factor):
            raise ArtifactError(f"{self.title}: factor {factor} came; expected a finite number")
        rows = {role: rows * factor for role, rows in self.rows.items()}
        return replace(self, **rows, parameters={"factor": factor, "parts": [dict(self.parameters)]})

    __rmul__ = __mul__

    def __neg__(self) -> "Delta":
        return self * -1

    def __sub__(self, other: "Delta") -> "Delta":
        return self + -other

    def save(self, path: str | Path) -> Path:
        """Write the folder atomically: 4 bytes per value, 4 per neuron; raises ArtifactError if the path is taken."""
        config = {
            "origin": origin_config(self.origin),
            "languages": list(self.languages),
            "n_layers": self.n_layers,
            "n_neurons": self.n_neurons,
            "parameters": dict(self.parameters),
        }
        tensors = {"offsets": self.offsets, "indices": self.indices, **self.rows}
        return save_folder(path, NOUN, config, tensors, write_card(NOUN, config, list(self._card())))

    def _card(self) -> Iterator[str]:
        layers = ", ".join(f"{layer}: {int(self.layer_counts[layer])}" for layer in self.layers)
        yield f"{len(self.indices)} neurons ({self.n_values} values, float32) of {self.n_layers} layers."
        yield f"Neurons by layer: {layers or 'none'}. Languages: {', '.join(self.languages)}."
        yield "Load with `babelscope.Delta.load(path)`; `delta.apply(model)` adds it, `delta.revert(model)` removes it."
        if "steering" in self.parameters:
            yield "Trained with a shift of the stream, whose recipes are in the folder `shift`: steer with them too."

    @classmethod
    def load(cls, path: str | Path, *, verify: bool = True) -> "Delta":
        """Read a folder; raises ArtifactError for anything damaged or of another kind.

        verify: compare the tensors' bytes with their hash; False saves reading a huge file once more, and is logged.
        """
        with open_folder(path, NOUN, verify=verify) as saved:
            indices = saved.tensor("indices", torch.int32, None)
            up = saved.tensor("up", torch.float32, len(indices), None)
            needed = [role for role in ROLES if role != "gate" or saved.has(role)]
            return cls(
                origin=saved.origin(),
                languages=saved.languages(),
                n_neurons=saved.whole("n_neurons", 1),
                offsets=saved.tensor("offsets", torch.int64, saved.whole("n_layers", 1) + 1),
                indices=indices,
                parameters=saved.table("parameters"),
                **{role: saved.tensor(role, torch.float32, *up.shape) for role in needed},
            )


def _composed(a: Delta, b: Delta) -> Delta:
    """Σ over the union of the rows."""
    a.origin.check_same(b.origin, "composing deltas")
    shapes = [(delta.n_layers, delta.n_neurons, delta.up.shape[1], tuple(delta.rows)) for delta in (a, b)]
    if shapes[0] != shapes[1]:
        raise ArtifactError(
            f"composing deltas of {shapes[0]} and {shapes[1]}; expected one shape; they cannot be added"
        )
    keys = torch.cat([a.keys, b.keys]).unique()
    rows = {role: torch.zeros(len(keys), a.up.shape[1]) for role in a.rows}
    for delta in (a, b):
        at = torch.searchsorted(keys, delta.keys)
        for role, change in delta.rows.items():
            rows[role][at] += change
    edges = torch.arange(a.n_layers + 1) * a.n_neurons
    return replace(
        a,
        languages=tuple(dict.fromkeys((*a.languages, *b.languages))),
        offsets=torch.searchsorted(keys, edges),
        indices=(keys % a.n_neurons).to(torch.int32),
        parameters={"parts": [dict(a.parameters), dict(b.parameters)]},
        **rows,
    )
