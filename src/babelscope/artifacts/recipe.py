"""What steering does, as data: recipes of operations that can be saved."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from babelscope.artifacts.gate import Condition, Course, Gate, Phase, Pool, Schedule, one_of
from babelscope.artifacts.hub import HubArtifact
from babelscope.artifacts.identity import Origin, differences
from babelscope.artifacts.json_entries import (
    as_flag,
    as_list,
    as_number,
    as_table,
    as_text,
    as_whole,
    entries_in,
    entries_of,
)
from babelscope.artifacts.model_settings import SCHEME, body_settings, hash_settings, settings_of, whole_config_hash
from babelscope.artifacts.operation import Operation, VectorUnit
from babelscope.artifacts.shown import shown_by
from babelscope.artifacts.storage import SavedFolder, open_folder, origin_config, save_folder, write_card
from babelscope.axes import Tensor
from babelscope.errors import SteeringError
from babelscope.feature_map import FeatureMap
from babelscope.sites import Site
from babelscope.upstream.config import config_value

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NOUN = "SteeringRecipe"


@dataclass(frozen=True, eq=False)
class SteeringRecipe(HubArtifact):
    """Operations in the order they are applied, and the model they were made from.

    `a + b` does what a does, then what b does. Raises SteeringError if an operation is from another model.
    """

    __repr__ = shown_by("origin.model", "operations")

    operations: tuple[Operation, ...]
    origin: Origin
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """How it was made."""

    def __post_init__(self) -> None:
        if not self.operations:
            raise SteeringError("a recipe without operations came; expected at least one; add operations")
        for operation in self.operations:
            if operation.origin is not None:
                self.origin.check_same(operation.origin, f"recipe, operation at '{operation.site}'")

    def __iter__(self) -> Iterator[Operation]:
        return iter(self.operations)

    def __len__(self) -> int:
        return len(self.operations)

    def __add__(self, other: "SteeringRecipe") -> "SteeringRecipe":
        self.origin.check_same(other.origin, "composing recipes")
        return replace(
            self,
            operations=self.operations + other.operations,
            parameters={"parts": [dict(self.parameters), dict(other.parameters)]},
        )

    def with_(
        self, *, strength: float | int | None = None, gate: Gate | None = None, schedule: Schedule | None = None
    ) -> "SteeringRecipe":
        """The same operations, all of them at another strength, gate or schedule; None leaves each as it is."""
        words = {"strength": strength, "gate": gate, "schedule": schedule}
        changes = {name: value for name, value in words.items() if value is not None}
        return replace(self, operations=tuple(replace(operation, **changes) for operation in self.operations))

    def check(self, model: "PreTrainedModel") -> None:
        """Raise SteeringError unless the model is the one this recipe was made for, by the settings that decide.

        A recipe whose model is not known, such as a stranger's control vector, passes: `steer` checks its widths, and
        the weights of a model that is known.
        """
        if not self.origin.model_hash:
            return
        difference = differences(self.origin, self._settings_as_origin(model.config), tokenizer=False)
        if difference:
            name = config_value(model.config, "name") or type(model).__name__
            raise SteeringError(
                f"recipe made for {self.origin.model!r}, came with {name!r}: {difference}; expected the same model; "
                "open the model it was made with"
            )

    def _settings_as_origin(self, config: Any) -> Origin:
        if not self.origin.model_hash.startswith(SCHEME):
            return Origin("", "", whole_config_hash(config.to_dict()), "")
        live, body = settings_of(config), body_settings(config)
        settings = body if hash_settings(body) == self.origin.model_hash else live
        return Origin("", "", hash_settings(settings), "", settings)

    def save(self, path: str | Path) -> Path:
        """Write the folder atomically; raises ArtifactError if the path is taken."""
        tensors, names, entries = {}, {}, []
        for number, operation in enumerate(self.operations):
            parts = {part: tensor for part, tensor in _tensors_of(operation).items() if tensor is not None}
            for part, tensor in parts.items():
                if id(tensor) not in names:
                    names[id(tensor)] = f"{number}.{part}"
                    # Cloned: views of one storage are refused by safetensors.
                    tensors[f"{number}.{part}"] = tensor.clone()
            entries.append({**_described(operation), "tensors": {part: names[id(t)] for part, t in parts.items()}})
        config = {
            "origin": origin_config(self.origin),
            "operations": entries,
            "parameters": dict(self.parameters),
        }
        return save_folder(path, NOUN, config, tensors, write_card(NOUN, config, self._card()))

    def _card(self) -> list[str]:
        card_lines = [
            f"{word.capitalize()}: {part[word]}."
            for part in self.parameters.get("parts", [self.parameters])
            for word in ("method", "source")
            if word in part
        ]
        return [
            *card_lines,
            *([""] if card_lines else []),
            *(f"- {_sentence(operation)}" for operation in self.operations),
        ]

    @classmethod
    def load(cls, path: str | Path, *, verify: bool = True) -> "SteeringRecipe":
        """Read a folder; raises ArtifactError for anything damaged or of another kind.

        verify: compare the tensors' bytes with their hash; False saves reading a huge file once more, and is logged.
        """
        with open_folder(path, NOUN, verify=verify) as saved:
            # A stranger's control vector has an origin without a hash.
            origin = saved.origin(refuse_unknown=False)
            entries = as_list(saved.entry("operations"), "operations")
            operations = tuple(_read_operation(entry, saved, number, origin) for number, entry in enumerate(entries))
            return cls(operations=operations, origin=origin, parameters=saved.table("parameters"))


_FEATURE_PARTS = ("encoder", "bias", "threshold", "decoder")


def _tensors_of(operation: Operation) -> dict[str, Tensor | None]:
    condition, features = operation.gate.condition, operation.features
    return {
        "vector": operation.vector,
        "indices": operation.indices,
        "matrix": operation.matrix,
        "condition": None if condition is None else condition.vector,
        **({} if features is None else {part: getattr(features, part) for part in (*_FEATURE_PARTS, "chosen")}),
    }


def _described(operation: Operation) -> dict[str, Any]:
    plain = ("kind", "strength", "unit", "mean_norm", "clean")
    gate, condition = replace(operation.gate, condition=None), operation.gate.condition
    condition_entry = None
    if condition is not None:
        words = {name: getattr(condition, name) for name in ("threshold", "above", "pool", "form", "left_out")}
        condition_entry = {"site": str(condition.site), **words}
    return {
        "site": str(operation.site),
        **{name: getattr(operation, name) for name in plain},
        "gate": {**asdict(gate), "condition": condition_entry},
        "schedule": asdict(operation.schedule),
        "top_k": None if operation.features is None else operation.features.top_k,
    }


def _sentence(operation: Operation) -> str:
    units = "" if operation.indices is None else f", {len(operation.indices)} units"
    units += "" if operation.features is None else f", {len(operation.features.chosen)} features"
    units += ", from a clean pass" if operation.clean else ""
    condition = operation.gate.condition
    condition_text = "" if condition is None else f", where the prompt meets a condition at `{condition.site}`"
    course = operation.schedule.course
    return (
        f"`{operation.kind}` at `{operation.site}`{units}, strength {operation.strength:g} ({operation.unit}), "
        f"{operation.gate.phase}, {course}{condition_text}"
    )


OPERATION = ("site", "kind", "strength", "unit", "mean_norm", "clean", "gate", "schedule", "top_k", "tensors")
EARLIER: dict[str, Any] = {"clean": False, "top_k": None}
"""Entries that recipes of earlier versions lack, and what they meant."""


def _read_operation(entry: Any, saved: SavedFolder, number: int, origin: Origin) -> Operation:
    what = f"operations.{number}"
    entry = {**EARLIER, **as_table(entry, what)}
    # Folders written before operations could share tensors have no such table.
    parts = ("vector", "indices")
    entry.setdefault("tensors", {part: f"{number}.{part}" for part in parts if saved.has(f"{number}.{part}")})
    site, kind, strength, unit, mean_norm, clean, gate, schedule, top_k, names = entries_of(entry, what, OPERATION)
    names = as_table(names, f"{what}.tensors")
    known_parts = (*parts, "matrix", "condition", *_FEATURE_PARTS, "chosen")
    if unknown := sorted({*names} - {*known_parts}):
        raise SteeringError(f"{what} has a tensor {unknown[0]!r}, which no operation has")

    def read(part: str, *shape: int | None, dtype: torch.dtype = torch.float32) -> Tensor:
        return saved.tensor(as_text(names.get(part), f"{what}.tensors.{part}"), dtype, *shape)

    one_of(unit, VectorUnit, "unit")
    vector = read("vector", None)
    return Operation(
        site=Site.parse(as_text(site, f"{what}.site")),
        kind=as_text(kind, f"{what}.kind"),
        vector=vector,
        strength=as_number(strength, f"{what}.strength"),
        unit=unit,
        indices=read("indices", len(vector), dtype=torch.int64) if "indices" in names else None,
        mean_norm=None if mean_norm is None else as_number(mean_norm, f"{what}.mean_norm"),
        gate=_read_gate(gate, read, f"{what}.gate"),
        schedule=_read_schedule(schedule, f"{what}.schedule"),
        origin=origin if origin.model_hash else None,
        matrix=read("matrix", None, len(vector)) if "matrix" in names else None,
        features=_read_features(top_k, read, what) if "encoder" in names else None,
        clean=as_flag(clean, f"{what}.clean"),
    )


def _read_schedule(entry: Any, what: str) -> Schedule:
    course, steps, start, end = entries_of(entry, what, ("course", "steps", "start", "end"))
    one_of(course, Course, "schedule")
    return Schedule(course, as_whole(steps, what, 1), as_number(start, what), as_number(end, what))


def _read_gate(entry: Any, read: Callable[..., Tensor], what: str) -> Gate:
    names = ("phase", "positions", "rows", "skip_special", "condition")
    entry = {"skip_special": None, "condition": None, **as_table(entry, what)}
    phase, positions, rows, skip, condition_entry = entries_of(entry, what, names)
    one_of(phase, Phase, "phase")
    if positions is not None:
        start, stop = (
            None if bound is None else as_whole(bound, f"{what}.positions", -(2**62))
            for bound in entries_in(positions, f"{what}.positions", 2)
        )
        positions = (start, stop)
    if rows is not None:
        rows = tuple(as_whole(row, f"{what}.rows") for row in as_list(rows, f"{what}.rows"))
    skip = None if skip is None else as_flag(skip, f"{what}.skip_special")
    return Gate(
        phase, positions, rows, skip, None if condition_entry is None else _read_condition(condition_entry, read, what)
    )


def _read_condition(entry: Any, read: Callable[..., Tensor], what: str) -> Condition:
    what = f"{what}.condition"
    # What was saved before conditions had a form is whole.
    entry = {"form": "whole", "left_out": [], **as_table(entry, what)}
    names = ("site", "threshold", "above", "pool", "form", "left_out")
    site, threshold, above, pool, form, units = entries_of(entry, what, names)
    one_of(pool, Pool, "pool")
    place, bar = Site.parse(as_text(site, what)), as_number(threshold, what)
    left_out = tuple(as_whole(unit, f"{what}.left_out") for unit in as_list(units, f"{what}.left_out"))
    return Condition(place, read("condition", None), bar, as_flag(above, what), pool, form, left_out)


def _read_features(top_k: Any, read: Callable[..., Tensor], what: str) -> FeatureMap:
    encoder, chosen = read("encoder", None, None), read("chosen", None, dtype=torch.int64)
    rows, width = encoder.shape
    return FeatureMap(
        encoder=encoder,
        bias=read("bias", rows),
        threshold=read("threshold", rows),
        decoder=read("decoder", len(chosen), width),
        chosen=chosen,
        top_k=None if top_k is None else as_whole(top_k, f"{what}.top_k", 1),
    )
