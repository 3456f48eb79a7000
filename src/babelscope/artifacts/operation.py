"""One change at one site, as data."""

import math
from dataclasses import dataclass, field
from typing import Literal

import torch

from babelscope.artifacts.gate import Gate, Schedule, one_of
from babelscope.artifacts.identity import Origin
from babelscope.artifacts.shown import shown_by
from babelscope.axes import Float32, Int64, Tensor
from babelscope.errors import SteeringError, refuse_no_number
from babelscope.feature_map import FeatureMap
from babelscope.interventions import KINDS, names_of
from babelscope.sites import Site

VectorUnit = Literal["raw", "unit", "relative"]


@dataclass(frozen=True, eq=False)
class Operation:
    """One change at one site.

    What each kind computes with strength s, vector v, matrix M and activation x (a row) is in the functions of
    `babelscope.interventions`: one function with its entry in `KINDS` is a kind.

    Strength 0 changes no bit. With `indices`, x is those units only.
    Raises SteeringError for what is empty, of the wrong shape, not finite, or (where a length is needed) zero.
    """

    __repr__ = shown_by("kind", "site", "strength", "unit", "vector")

    site: Site
    kind: str
    """A name in `babelscope.interventions.KINDS`."""
    vector: Float32[Tensor, " unit"]
    """The whole width of the site, or one value per entry of `indices`, or one per chosen feature."""
    strength: float | int = 1.0
    unit: VectorUnit = "raw"
    """Of `add`: raw (v as it is), unit (v/|v|), relative (mean_norm·v/|v|)."""
    indices: Int64[Tensor, " chosen"] | None = None
    """Units touched, all different; heads count flat, experts' neurons expert-major. None means all."""
    mean_norm: float | int | None = None
    """The length that a `relative` strength is a share of: the activation's mean norm, or in a direction's ordinary
    form the median length of ordinary tokens."""
    gate: Gate = field(default_factory=Gate)
    schedule: Schedule = field(default_factory=Schedule)
    origin: Origin | None = None
    """The model it was made from; `steer` refuses another one. None is not checked."""
    matrix: Float32[Tensor, "row unit"] | None = None
    """Of `subspace` and `affine`."""
    features: FeatureMap | None = None
    """Of `clamp_features` and `scale_features`."""
    clean: bool = False
    """x is read in a pass over the prompt in which nothing steers, and the result is pasted; prompt tokens only."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise SteeringError(f"operation {self.kind!r} is unknown; expected one of {', '.join(KINDS)}; correct it")
        one_of(self.unit, VectorUnit, "unit")
        refuse_no_number({"strength": self.strength}, SteeringError)
        fault = self._fault() or self._part_fault()
        if fault:
            raise SteeringError(f"operation {self.kind!r} at '{self.site}': {fault}")

    def _fault(self) -> str:
        vector, indices, kind = self.vector, self.indices, KINDS[self.kind]
        if vector.ndim != 1 or vector.dtype != torch.float32 or not len(vector):
            return f"vector {vector.dtype} {list(vector.shape)} came; expected one float32 row"
        if not bool(torch.isfinite(vector).all()):
            return "the vector holds NaN or infinity; expected finite values"
        if not abs(self.strength) <= torch.finfo(torch.float32).max:
            return f"strength {self.strength} came; expected a finite number"
        if indices is not None and indices.shape != vector.shape:
            return f"{len(indices)} indices came with {len(vector)} values; expected one value each"
        if indices is not None and (len(indices.unique()) < len(indices) or int(indices.min()) < 0):
            return "an index is negative or came twice; expected different units counted from 0"
        if self.unit != "raw" and not kind.has_units:
            return f"unit {self.unit!r} came; only {names_of(has_units=True)} has units; use 'raw'"
        if kind.whole and indices is not None:
            return "indices came; expected a whole direction"
        if (self.unit != "raw" or kind.has_direction) and not bool(vector.any()):
            return "the vector is zero and has no direction"
        if self.unit == "relative" and not (self.mean_norm and 0 < self.mean_norm < math.inf):
            return f"mean_norm {self.mean_norm} came; unit 'relative' needs a finite one above 0"
        if self.clean and (self.gate.phase != "prompt" or indices is not None):
            return "clean values exist for whole prompt tokens only; expected phase 'prompt' and no indices"
        if kind.only_at is not None and self.site.at != kind.only_at:
            return f"it acts at a {kind.only_at} alone; correct the site"
        return ""

    def _part_fault(self) -> str:
        kind, parts = KINDS[self.kind], {"matrix": self.matrix, "features": self.features}
        for name, part in parts.items():
            if (kind.needs == name) != (part is not None):
                return f"expected {name} with {names_of(needs=name)}, and with nothing else"
        if self.features is not None and len(self.vector) != len(self.features.chosen):
            return f"{len(self.vector)} values came for {len(self.features.chosen)} features; expected one each"
        matrix = self.matrix
        if matrix is None:
            return ""
        if matrix.dtype != torch.float32 or not bool(torch.isfinite(matrix).all()):
            return "the matrix is not finite float32; expected finite values"
        return kind.matrix_fault(matrix, len(self.vector))

    @property
    def scale(self) -> float:
        """What the unit multiplies the vector by."""
        if self.unit == "raw":
            return 1.0
        length = float(self.vector.double().norm())
        return (self.mean_norm or 0.0) / length if self.unit == "relative" else 1.0 / length
