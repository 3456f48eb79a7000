"""What steering does, as data: recipes of operations that can be saved."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from babelscope.artifacts.gate import Condition, Course, Gate, Phase, Pool, Schedule, one_of
from babelscope.artifacts.identity import (
    SCHEME,
    Origin,
    differences,
    hash_settings,
    settings_of,
    whole_config_hash,
)
from babelscope.artifacts.operation import FeatureMap, Kind, Operation, Unit
from babelscope.artifacts.storage import (
    load_folder,
    origin_config,
    origin_from,
    save_folder,
    tensor_of,
    write_card,
)
from babelscope.axes import Tensor
from babelscope.errors import SteeringError
from babelscope.sites import Site
from babelscope.upstream.config import config_value

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NOUN = "SteeringRecipe"


@dataclass(frozen=True, eq=False)
class SteeringRecipe:
    """Operations in the order they are applied, and the model they were made from.

    `a + b` does what a does, then what b does. Raises SteeringError if an operation is from another model.
    """

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

    def check(self, model: "PreTrainedModel") -> None:
        """Raise SteeringError unless the model is the one this recipe was made for, by the settings that decide.

        A recipe whose model is not known, such as a stranger's control vector, passes: `steer` checks its widths, and
        the weights of a model that is known.
        """
        if not self.origin.model_hash:
            return
        found = differences(self.origin, self._settings_as_origin(model.config), tokenizer=False)
        if found:
            name = config_value(model.config, "name") or type(model).__name__
            raise SteeringError(
                f"recipe made for {self.origin.model!r}, came with {name!r}: {found}; expected the same model; open "
                "the model it was made with"
            )

    def _settings_as_origin(self, config: Any) -> Origin:
        if not self.origin.model_hash.startswith(SCHEME):
            return Origin("", "", whole_config_hash(config.to_dict()), "")
        settings = settings_of(config)
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
        made = [
            f"{word.capitalize()}: {part[word]}."
            for part in self.parameters.get("parts", [self.parameters])
            for word in ("method", "source")
            if word in part
        ]
        return [*made, *([""] if made else []), *(f"- {_sentence(operation)}" for operation in self.operations)]

    @classmethod
    def load(cls, path: str | Path) -> "SteeringRecipe":
        """Read a folder; raises ArtifactError for anything damaged or of another kind."""
        path = Path(path)
        config, tensors = load_folder(path, NOUN)
        origin = origin_from(config, path)
        try:
            operations = tuple(
                _read_operation(entry, tensors, number, origin, path)
                for number, entry in enumerate(config["operations"])
            )
            return cls(operations=operations, origin=origin, parameters=config["parameters"])
        except (KeyError, TypeError, ValueError, AttributeError) as err:
            raise SteeringError(f"{path}: unreadable operations ({err}); expected a SteeringRecipe") from err


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
    asked = None
    if condition is not None:
        words = {name: getattr(condition, name) for name in ("threshold", "above", "pool")}
        asked = {"site": str(condition.site), **words}
    return {
        "site": str(operation.site),
        **{name: getattr(operation, name) for name in plain},
        "gate": {**asdict(gate), "condition": asked},
        "schedule": asdict(operation.schedule),
        "top_k": None if operation.features is None else operation.features.top_k,
    }


def _sentence(operation: Operation) -> str:
    units = "" if operation.indices is None else f", {len(operation.indices)} units"
    units += "" if operation.features is None else f", {len(operation.features.chosen)} features"
    units += ", from a clean pass" if operation.clean else ""
    condition = operation.gate.condition
    asked = "" if condition is None else f", where the prompt meets a condition at `{condition.site}`"
    course = operation.schedule.course
    return (
        f"`{operation.kind}` at `{operation.site}`{units}, strength {operation.strength:g} ({operation.unit}), "
        f"{operation.gate.phase}, {course}{asked}"
    )


def _read_operation(
    entry: Mapping[str, Any], tensors: Mapping[str, Tensor], number: int, origin: Origin, path: Path
) -> Operation:
    # Folders written before operations could share tensors have no such table.
    old = {part: f"{number}.{part}" for part in ("vector", "indices") if f"{number}.{part}" in tensors}
    names = entry.get("tensors", old)

    def read(part: str, *shape: int | None, dtype: torch.dtype = torch.float32) -> Tensor:
        return tensor_of(tensors, names.get(part, f"{number}.{part}"), dtype, shape, path)

    words = [("kind", entry["kind"], Kind), ("unit", entry["unit"], Unit), ("phase", entry["gate"]["phase"], Phase)]
    for what, word, known in [*words, ("schedule", entry["schedule"]["course"], Course)]:
        one_of(word, known, what)
    vector = read("vector", None)
    return Operation(
        site=Site.parse(entry["site"]),
        kind=entry["kind"],
        vector=vector,
        strength=float(entry["strength"]),
        unit=entry["unit"],
        indices=read("indices", len(vector), dtype=torch.int64) if "indices" in names else None,
        mean_norm=entry["mean_norm"],
        gate=_read_gate(entry["gate"], read),
        schedule=Schedule(**entry["schedule"]),
        origin=origin if origin.model_hash else None,
        matrix=read("matrix", None, None) if "matrix" in names else None,
        features=_read_features(entry, read) if "encoder" in names else None,
        clean=entry.get("clean", False),
    )


def _read_gate(entry: Mapping[str, Any], read: Callable[..., Tensor]) -> Gate:
    words: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()}
    asked, bounds, rows = words.pop("condition", None), words["positions"], words["rows"]
    if bounds is not None and (len(bounds) != 2 or not all(bound is None or type(bound) is int for bound in bounds)):
        raise SteeringError(f"gate positions {bounds} came; expected a start and a stop, whole numbers or null")
    if rows is not None and not all(type(row) is int for row in rows):
        raise SteeringError(f"gate rows {rows} came; expected whole numbers counted from 0")
    if asked is None:
        return Gate(**words)
    one_of(asked["pool"], Pool, "pool")
    return Gate(
        **words, condition=Condition(**{**asked, "site": Site.parse(asked["site"])}, vector=read("condition", None))
    )


def _read_features(entry: Mapping[str, Any], read: Callable[..., Tensor]) -> FeatureMap:
    return FeatureMap(
        encoder=read("encoder", None, None),
        bias=read("bias", None),
        threshold=read("threshold", None),
        decoder=read("decoder", None, None),
        chosen=read("chosen", None, dtype=torch.int64),
        top_k=entry["top_k"],
    )
