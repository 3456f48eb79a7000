"""Sparse changes of single parameter values, as lottery-ticket tuning and SHiRA make them."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch

from babelscope.artifacts import Origin
from babelscope.artifacts.hub import HubArtifact
from babelscope.artifacts.json_entries import as_list, as_text, as_whole, entries_in
from babelscope.artifacts.shown import shown_by
from babelscope.artifacts.storage import open_folder, origin_config, save_folder, write_card
from babelscope.axes import Bool, Float32, Int64, Tensor
from babelscope.errors import ArtifactError
from babelscope.languages import Language, parse_languages
from babelscope.models import check_made_for
from babelscope.models.origin import origin_without
from babelscope.models.plain import CausalModel, check_model
from babelscope.subnetworks.applied import applied_change, apply_change, cast_loss, revert_change
from babelscope.subnetworks.places import Cells, ElementPlace
from babelscope.subnetworks.rounding import CastLoss

NOUN = "ElementDelta"


class Elements(NamedTuple):
    """The changed values of one parameter."""

    shape: tuple[int, ...]
    """Of the parameter."""
    indices: Int64[Tensor, " element"]
    """Into the parameter laid flat, strictly ascending."""
    values: Float32[Tensor, " element"]
    """Trained minus base."""


@dataclass(frozen=True, eq=False)
class ElementDelta(HubArtifact):
    """The change of single values of named parameters; `a + b`, `a - b`, `2 * a` over the union of the values.

    Source of composing sparse changes by adding them: Ansell et al. 2022, arXiv:2110.07560.
    """

    __repr__ = shown_by("origin.model", "languages", "n_values")

    origin: Origin
    languages: tuple[Language, ...]
    elements: Mapping[str, Elements]
    """By parameter, as `model.named_parameters()` names it."""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """How it was trained; never text."""

    def __post_init__(self) -> None:
        for name, (shape, indices, values) in self.elements.items():
            if indices.dtype != torch.int64 or values.dtype != torch.float32 or indices.shape != values.shape:
                raise ArtifactError(
                    f"{name}: {indices.dtype} {list(indices.shape)} indices, {values.dtype} {list(values.shape)} "
                    "values; expected int64 and float32, one value each"
                )
            if bool((indices.diff() <= 0).any()):
                raise ArtifactError(f"{name}: indices are not strictly ascending; the delta is damaged")
            if len(indices) and not (int(indices[0]) >= 0 and int(indices[-1]) < math.prod(shape)):
                raise ArtifactError(f"{name}: an index is out of range; expected 0–{math.prod(shape) - 1}")
            if not bool(torch.isfinite(values).all()):
                raise ArtifactError(f"{name}: the change holds NaN or infinity; expected finite values; train again")

    @classmethod
    def between(
        cls,
        before: Mapping[str, Tensor],
        model: CausalModel,
        mask: Mapping[str, Bool[Tensor, "..."]],
        *,
        origin: Origin,
        languages: Sequence[str],
        parameters: Mapping[str, Any] | None = None,
    ) -> "ElementDelta":
        """What training changed where the mask is True, in float32.

        before: the parameters' values before training, by name.
        origin: of the model before or after training: what its sample of weights says of the parameters under the mask
        is left out.
        Raises ArtifactError for a mask or a state that does not fit the model's parameters.
        """
        live, elements = dict(model.named_parameters()), {}
        for name, chosen in mask.items():
            if name not in live or name not in before or not chosen.shape == live[name].shape == before[name].shape:
                raise ArtifactError(
                    f"{name}: mask of {list(chosen.shape)} came; expected parameters of this shape in the model and in "
                    "the state before; take names from model.named_parameters(), where tied ones come once"
                )
            indices = chosen.flatten().nonzero()[:, 0].cpu()
            after, at_start = (
                weights.detach().flatten()[indices].float().cpu() for weights in (live[name], before[name])
            )
            elements[name] = Elements(tuple(chosen.shape), indices, after - at_start)
        base = origin_without(origin, model, mask)
        return cls(base, parse_languages(languages), elements, dict(parameters or {}))

    @property
    def n_values(self) -> int:
        """Changed values."""
        return sum(len(part.indices) for part in self.elements.values())

    @property
    def changes_values(self) -> bool:
        """Whether any of its values is another than before."""
        return any(bool(part.values.any()) for part in self.elements.values())

    @property
    def title(self) -> str:
        """For messages."""
        return f"element delta of {' + '.join(self.languages)}"

    @property
    def digest(self) -> str:
        """blake2b of what it changes."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        digest = hashlib.blake2b(self.origin.model_hash.encode(), digest_size=8)
        for name in sorted(self.elements):
            shape, indices, values = self.elements[name]
            digest.update(f"{name} {shape} {len(indices)}".encode())
            for tensor in (indices, values):
                digest.update(tensor.contiguous().numpy().data)
        return digest.hexdigest()

    def check(self, model: CausalModel) -> None:
        """Raise ArtifactError unless it was made from this model, and its parameters are there in the same shapes."""
        check_model(model)
        check_made_for(self.origin, model, None, self.title)
        live = dict(model.named_parameters())
        for name, part in self.elements.items():
            if name not in live or tuple(live[name].shape) != part.shape:
                present = list(live[name].shape) if name in live else "nothing of that name"
                raise ArtifactError(
                    f"{self.title}: changes {name} of {list(part.shape)}; found {present} in the model; expected the "
                    "same"
                )

    def apply(self, model: CausalModel, scale: float | int = 1.0) -> int:
        """Add scale times the change to the model in place; returns the bytes written. Exact as `Delta.apply` is."""
        return apply_change(model, self, scale)

    def revert(self, model: CausalModel) -> int:
        """Take the change out again; returns the bytes written. Raises ArtifactError if the model does not hold it."""
        return revert_change(model, self)

    def applied(self, model: CausalModel, scale: float | int = 1.0) -> AbstractContextManager[None]:
        """While open the model holds the change."""
        return applied_change(model, self, scale)

    def cast_loss(self, model: CausalModel, scale: float | int = 1.0, *, dtype: torch.dtype | None = None) -> CastLoss:
        """What rounding takes of the change in the model's weights, as `Delta.cast_loss`."""
        return cast_loss(model, self, scale, dtype)[0]

    def cells(self) -> dict[str, Cells]:
        """What is added, by parameter."""
        return {name: Cells(part.indices, part.values) for name, part in self.elements.items()}

    def places(self, model: CausalModel, *, applied: bool = False) -> dict[str, ElementPlace]:
        """Its places in a model, which is checked unless it holds the delta."""
        if not applied:
            self.check(model)
        live = dict(model.named_parameters())
        return {name: ElementPlace(name, live[name]) for name in self.elements}

    def storages(self, model: CausalModel) -> set[int]:
        """Addresses of the parameters that it touches."""
        live = dict(model.named_parameters())
        return {live[name].untyped_storage().data_ptr() for name in self.elements if name in live}

    def __add__(self, other: "ElementDelta") -> "ElementDelta":
        self.origin.check_same(other.origin, "composing element deltas")
        names = dict.fromkeys((*self.elements, *other.elements))
        return replace(
            self,
            languages=tuple(dict.fromkeys((*self.languages, *other.languages))),
            elements={name: _added(name, self.elements.get(name), other.elements.get(name)) for name in names},
            parameters={"parts": [dict(self.parameters), dict(other.parameters)]},
        )

    def __mul__(self, factor: float | int) -> "ElementDelta":
        if not math.isfinite(factor):
            raise ArtifactError(f"{self.title}: factor {factor} came; expected a finite number")
        elements = {name: part._replace(values=part.values * factor) for name, part in self.elements.items()}
        return replace(self, elements=elements, parameters={"factor": factor, "parts": [dict(self.parameters)]})

    __rmul__ = __mul__

    def __neg__(self) -> "ElementDelta":
        return self * -1

    def __sub__(self, other: "ElementDelta") -> "ElementDelta":
        return self + -other

    def save(self, path: str | Path) -> Path:
        """Write the folder atomically: 4 bytes per value and 4 an index (8 in parameters of 2³¹ values and more)."""
        names = sorted(self.elements)
        config = {
            "origin": origin_config(self.origin),
            "languages": list(self.languages),
            "elements": [[name, list(self.elements[name].shape)] for name in names],
            "parameters": dict(self.parameters),
        }
        tensors = {}
        for number, name in enumerate(names):
            part = self.elements[name]
            tensors[f"{number}.indices"] = part.indices.to(_stored(part.shape))
            tensors[f"{number}.values"] = part.values
        lines = [f"{self.n_values} values of {len(names)} parameters. Languages: {', '.join(self.languages)}."]
        return save_folder(path, NOUN, config, tensors, write_card(NOUN, config, lines))

    @classmethod
    def load(cls, path: str | Path, *, verify: bool = True) -> "ElementDelta":
        """Read a folder; raises ArtifactError for anything damaged or of another kind.

        verify: compare the tensors' bytes with their hash; False saves reading a huge file once more, and is logged.
        """
        with open_folder(path, NOUN, verify=verify) as saved:
            elements: dict[str, Elements] = {}
            for number, row in enumerate(as_list(saved.entry("elements"), "elements")):
                name, sizes = entries_in(row, "elements", 2)
                shape = tuple(as_whole(size, f"elements.{number}", 1) for size in as_list(sizes, f"elements.{number}"))
                indices = saved.tensor(f"{number}.indices", _stored(shape), None).long()
                values = saved.tensor(f"{number}.values", torch.float32, len(indices))
                if as_text(name, f"elements.{number}") in elements:
                    raise saved.fault(f"parameter {name!r} comes twice")
                elements[name] = Elements(shape, indices, values)
            return cls(saved.origin(), saved.languages(), elements, saved.table("parameters"))


def _stored(shape: tuple[int, ...]) -> torch.dtype:
    return torch.int32 if math.prod(shape) < 2**31 else torch.int64


def _added(name: str, a: Elements | None, b: Elements | None) -> Elements:
    if a is None or b is None:
        either = a or b
        assert either is not None
        return either
    if a.shape != b.shape:
        raise ArtifactError(f"composing changes of {name} of {list(a.shape)} and {list(b.shape)}; expected one shape")
    indices = torch.cat([a.indices, b.indices]).unique()
    values = torch.zeros(len(indices))
    for part in (a, b):
        values[torch.searchsorted(indices, part.indices)] += part.values
    return Elements(a.shape, indices, values)
