"""What steering does, as data: operations at sites, and recipes of them that can be saved."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from babelscope.artifacts.storage import (
    Origin,
    load_folder,
    origin_config,
    origin_from,
    save_folder,
    tensor_of,
    write_card,
)
from babelscope.axes import Float32, Int64, Tensor
from babelscope.errors import ArtifactError
from babelscope.sites import Site

NOUN = "SteeringRecipe"

Kind = Literal["add", "replace", "scale", "project_out"]
Unit = Literal["raw", "unit", "relative"]
Phase = Literal["prompt", "generated", "both"]
Course = Literal["constant", "first", "every", "ramp"]


def _one_of(value: Any, kind: Any, what: str) -> None:
    if value not in get_args(kind):
        raise ArtifactError(f"{what} {value!r} is unknown; expected one of {', '.join(get_args(kind))}; correct it")


@dataclass(frozen=True)
class Gate:
    """Which rows and tokens an operation touches; pads are never touched.

    Tokens count from each row's first real token, and generated ones go on counting after the prompt.
    """

    phase: Phase = "both"
    """`prompt`, `generated`, or `both`. Outside `generate` every token is prompt."""
    positions: tuple[int | None, int | None] | None = None
    """Start and stop, as in a slice. Negative numbers count back from the end of the prompt: (-1, None) is the last
    prompt token and all that follow it, (0, 4) the first four tokens."""
    rows: tuple[int, ...] | None = None
    """Rows of the batch, from 0, as handed to the model (before beams); None means every row."""
    skip_special: bool | None = None
    """Leave out the tokenizer's special tokens, those of the chat template among them. None: leave them out where
    `steer` was given the tokenizer. True without a tokenizer is refused."""

    def __post_init__(self) -> None:
        _one_of(self.phase, Phase, "phase")
        if self.rows is not None and (not self.rows or min(self.rows) < 0):
            raise ArtifactError(f"gate rows {self.rows} came; expected one or more rows counted from 0; correct them")


@dataclass(frozen=True)
class Schedule:
    """How strength changes over decode steps: a factor on it.

    Step t is the pass that chooses output token t: all prompt tokens are step 0, the i-th generated token (from 0),
    once fed back, is step i + 1. The factor depends on the token alone, so results do not depend on the cache.
    """

    course: Course = "constant"
    """constant: 1. first: 1 for steps < `steps`, then 0. every: 1 where step is a multiple of `steps`, else 0.
    ramp: from `start` at step 0 straight to `end` at step `steps`, and `end` after."""
    steps: int = 1
    start: float = 1.0
    end: float = 0.0

    def __post_init__(self) -> None:
        _one_of(self.course, Course, "schedule")
        if self.steps < 1 or not (math.isfinite(self.start) and math.isfinite(self.end)):
            raise ArtifactError(f"schedule {self}; expected at least 1 step and finite factors; correct it")

    @classmethod
    def first(cls, steps: int) -> "Schedule":
        """Full strength for the first steps, nothing after."""
        return cls("first", steps)

    @classmethod
    def every(cls, steps: int) -> "Schedule":
        """Full strength at step 0 and every so many steps, nothing between."""
        return cls("every", steps)

    @classmethod
    def ramp(cls, steps: int, *, start: float = 1.0, end: float = 0.0) -> "Schedule":
        """From one factor to another in so many steps."""
        return cls("ramp", steps, start, end)

    def factor(self, step: int) -> float:
        """Factor on the strength at a decode step."""
        match self.course:
            case "first":
                return float(step < self.steps)
            case "every":
                return float(step % self.steps == 0)
            case "ramp":
                return self.start + (self.end - self.start) * min(1.0, step / self.steps)
            case _:
                return 1.0


@dataclass(frozen=True, eq=False)
class Operation:
    """One change at one site; with strength s, vector v and activation x:

    add          x + s·v
    replace      x + s·(v - x), exactly v at s = 1
    scale        x + s·(v·x - x), exactly v·x at s = 1
    project_out  x - s·(x·q)q with q = v/|v|; s = 1 leaves nothing along v, s < 0 adds to it

    Strength 0 changes no bit. With `indices`, x is those units only.
    Raises ArtifactError for a vector that is empty, not finite, or (where a length is needed) zero.
    """

    site: Site
    kind: Kind
    vector: Float32[Tensor, " unit"]
    """The whole width of the site, or one value per entry of `indices`."""
    strength: float | int = 1.0
    unit: Unit = "raw"
    """Of `add`: raw (v as it is), unit (v/|v|), relative (mean_norm·v/|v|)."""
    indices: Int64[Tensor, " chosen"] | None = None
    """Units touched, all different; heads count flat, experts' neurons expert-major. None means all."""
    mean_norm: float | int | None = None
    """Mean norm of the activation at the site; needed by `relative`."""
    gate: Gate = field(default_factory=Gate)
    schedule: Schedule = field(default_factory=Schedule)
    origin: Origin | None = None
    """The model it was made from; `steer` refuses another one. None is not checked."""

    def __post_init__(self) -> None:
        _one_of(self.kind, Kind, "operation")
        _one_of(self.unit, Unit, "unit")
        fault = self._fault()
        if fault:
            raise ArtifactError(f"operation {self.kind!r} at '{self.site}': {fault}")

    def _fault(self) -> str:
        vector, indices = self.vector, self.indices
        if vector.ndim != 1 or vector.dtype != torch.float32 or not len(vector):
            return f"vector {vector.dtype} {list(vector.shape)} came; expected one float32 row"
        if not bool(torch.isfinite(vector).all()):
            return "the vector holds NaN or infinity; expected finite values"
        if not math.isfinite(self.strength):
            return f"strength {self.strength} came; expected a finite number"
        if indices is not None and indices.shape != vector.shape:
            return f"{len(indices)} indices came with {len(vector)} values; expected one value each"
        if indices is not None and (len(indices.unique()) < len(indices) or int(indices.min()) < 0):
            return "an index is negative or came twice; expected different units counted from 0"
        if self.unit != "raw" and self.kind != "add":
            return f"unit {self.unit!r} came; only 'add' has units; use 'raw'"
        if self.kind == "project_out" and indices is not None:
            return "indices came; expected a whole direction"
        if (self.unit != "raw" or self.kind == "project_out") and not bool(vector.any()):
            return "the vector is zero and has no direction"
        if self.unit == "relative" and not (self.mean_norm and 0 < self.mean_norm < math.inf):
            return f"mean_norm {self.mean_norm} came; unit 'relative' needs a finite one above 0"
        return ""

    @property
    def scale(self) -> float:
        """What the unit multiplies the vector by."""
        if self.unit == "raw":
            return 1.0
        length = float(self.vector.double().norm())
        return (self.mean_norm or 0.0) / length if self.unit == "relative" else 1.0 / length


@dataclass(frozen=True, eq=False)
class SteeringRecipe:
    """Operations in the order they are applied, and the model they were made from.

    `a + b` does what a does, then what b does. Raises ArtifactError if an operation is from another model.
    """

    operations: tuple[Operation, ...]
    origin: Origin
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """How it was made."""

    def __post_init__(self) -> None:
        if not self.operations:
            raise ArtifactError("a recipe without operations came; expected at least one; add operations")
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

    def save(self, path: str | Path) -> Path:
        """Write the folder atomically; raises ArtifactError if the path is taken."""
        tensors: dict[str, Tensor] = {}
        for number, operation in enumerate(self.operations):
            # Cloned: operations may share a vector, and safetensors refuses shared memory.
            tensors[f"{number}.vector"] = operation.vector.clone()
            if operation.indices is not None:
                tensors[f"{number}.indices"] = operation.indices.clone()
        config = {
            "origin": origin_config(self.origin),
            "operations": [_described(operation) for operation in self.operations],
            "parameters": dict(self.parameters),
        }
        lines = [f"- {_sentence(operation)}" for operation in self.operations]
        return save_folder(path, NOUN, config, tensors, write_card(NOUN, config, lines))

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
            raise ArtifactError(f"{path}: unreadable operations ({err}); expected a SteeringRecipe") from err


def _described(operation: Operation) -> dict[str, Any]:
    plain = ("kind", "strength", "unit", "mean_norm")
    return {
        "site": str(operation.site),
        **{name: getattr(operation, name) for name in plain},
        "gate": asdict(operation.gate),
        "schedule": asdict(operation.schedule),
    }


def _sentence(operation: Operation) -> str:
    units = "" if operation.indices is None else f", {len(operation.indices)} units"
    course = operation.schedule.course
    return (
        f"`{operation.kind}` at `{operation.site}`{units}, strength {operation.strength:g} ({operation.unit}), "
        f"{operation.gate.phase}, {course}"
    )


def _read_operation(
    entry: Mapping[str, Any], tensors: Mapping[str, Tensor], number: int, origin: Origin, path: Path
) -> Operation:
    vector = tensor_of(tensors, f"{number}.vector", torch.float32, (None,), path)
    name = f"{number}.indices"
    gate: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in entry["gate"].items()
    }
    words = [("kind", entry["kind"], Kind), ("unit", entry["unit"], Unit), ("phase", gate["phase"], Phase)]
    for what, word, known in [*words, ("schedule", entry["schedule"]["course"], Course)]:
        _one_of(word, known, what)
    return Operation(
        site=Site.parse(entry["site"]),
        kind=entry["kind"],
        vector=vector,
        strength=float(entry["strength"]),
        unit=entry["unit"],
        indices=tensor_of(tensors, name, torch.int64, (len(vector),), path) if name in tensors else None,
        mean_norm=entry["mean_norm"],
        gate=Gate(**gate),
        schedule=Schedule(**entry["schedule"]),
        origin=origin,
    )
