"""One change at one site, as data."""

import math
from dataclasses import dataclass, field, replace
from typing import Literal

import torch

from babelscope.artifacts.gate import Gate, Schedule, one_of
from babelscope.artifacts.identity import Origin
from babelscope.axes import Float32, Int64, Tensor
from babelscope.errors import SteeringError
from babelscope.sites import Site

Kind = Literal[
    "add",
    "replace",
    "scale",
    "project_out",
    "subspace",
    "affine",
    "clamp_features",
    "scale_features",
    "promote",
    "force",
]
Unit = Literal["raw", "unit", "relative"]
MATRIX_KINDS = ("subspace", "affine")
FEATURE_KINDS = ("clamp_features", "scale_features")
ROUTER_KINDS = ("promote", "force")
WHOLE_KINDS = ("project_out", *MATRIX_KINDS, *FEATURE_KINDS)
"""Kinds that need all units of a site."""


@dataclass(frozen=True, eq=False)
class FeatureMap:
    """What an operation on a few features of a sparse autoencoder needs of it.

    pre = encoder·x + bias; f = pre where pre > threshold, else 0; with `top_k`, also 0 outside the k largest of pre.
    Rows of the encoder are the chosen features alone, or with `top_k` all features. Biases and scalings of the
    autoencoder's input belong in `encoder`, `bias` and `decoder`: x is the model's own activation.
    Raises SteeringError for shapes that do not fit, values that are not finite, or a negative threshold.
    """

    encoder: Float32[Tensor, "feature unit"]
    bias: Float32[Tensor, " feature"]
    threshold: Float32[Tensor, " feature"]
    """0 for ReLU."""
    decoder: Float32[Tensor, "chosen unit"]
    chosen: Int64[Tensor, " chosen"]
    """Row of the encoder of each decoder row."""
    top_k: int | None = None

    def __post_init__(self) -> None:
        n, width = self.encoder.shape
        shapes = (tuple(self.bias.shape), tuple(self.threshold.shape), tuple(self.decoder.shape))
        if shapes != ((n,), (n,), (len(self.chosen), width)) or not len(self.chosen):
            raise SteeringError(
                f"features: encoder {[n, width]} came with bias, threshold, decoder {[list(s) for s in shapes]}; "
                f"expected {[n]}, {[n]}, {[len(self.chosen), width]}; use one autoencoder"
            )
        floats = (self.encoder, self.bias, self.threshold, self.decoder)
        if not all(part.dtype == torch.float32 and bool(torch.isfinite(part).all()) for part in floats):
            raise SteeringError("features: a tensor is not finite float32; expected finite weights; load them again")
        if bool((self.threshold < 0).any()) or not 0 <= int(self.chosen.min()) <= int(self.chosen.max()) < n:
            raise SteeringError(f"features: a threshold below 0 or a feature outside 0–{n - 1}; expected neither")
        if self.top_k is not None and not 0 < self.top_k <= n:
            raise SteeringError(f"features: top_k {self.top_k} came; expected 1–{n}; hand over the whole encoder")

    def to(self, device: torch.device) -> "FeatureMap":
        """The same on another device."""
        names = ("encoder", "bias", "threshold", "decoder", "chosen")
        return replace(self, **{name: getattr(self, name).to(device) for name in names})


@dataclass(frozen=True, eq=False)
class Operation:
    """One change at one site; with strength s, vector v, matrix M and activation x (a row):

    add             x + s·v
    replace         x + s·(v - x), exactly v at s = 1
    scale           x + s·(v·x - x), exactly v·x at s = 1
    project_out     x - s·(x·q)q with q = v/|v|; s = 1 leaves nothing along v, s < 0 adds to it
    subspace        x - s·((x - v)Mᵀ)M, M orthonormal rows; s = 1 holds x at v within the subspace, s < 0 moves away
    affine          x + s·(xM + v)
    clamp_features  x + s·Σ_j (v_j - f_j)·d_j, f and d an autoencoder's features and decoder rows; what the
                    autoencoder does not explain is kept
    scale_features  x + s·Σ_j (v_j - 1)·f_j·d_j
    promote         z + s·v·std(z) at a router, std over the token's experts; its top experts are chosen anew
    force           z + s·(edge - z) at a router where v is not 0, edge = max(z) + v, or min(z) + v where v < 0

    Strength 0 changes no bit. With `indices`, x is those units only.
    Raises SteeringError for what is empty, of the wrong shape, not finite, or (where a length is needed) zero.
    """

    site: Site
    kind: Kind
    vector: Float32[Tensor, " unit"]
    """The whole width of the site, or one value per entry of `indices`, or one per chosen feature."""
    strength: float | int = 1.0
    unit: Unit = "raw"
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
        one_of(self.kind, Kind, "operation")
        one_of(self.unit, Unit, "unit")
        fault = self._fault() or self._matrix_fault() or self._feature_fault()
        if fault:
            raise SteeringError(f"operation {self.kind!r} at '{self.site}': {fault}")

    def _fault(self) -> str:
        vector, indices = self.vector, self.indices
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
        if self.unit != "raw" and self.kind != "add":
            return f"unit {self.unit!r} came; only 'add' has units; use 'raw'"
        if self.kind in WHOLE_KINDS and indices is not None:
            return "indices came; expected a whole direction"
        if (self.unit != "raw" or self.kind == "project_out") and not bool(vector.any()):
            return "the vector is zero and has no direction"
        if self.unit == "relative" and not (self.mean_norm and 0 < self.mean_norm < math.inf):
            return f"mean_norm {self.mean_norm} came; unit 'relative' needs a finite one above 0"
        if self.clean and (self.gate.phase != "prompt" or indices is not None):
            return "clean values exist for whole prompt tokens only; expected phase 'prompt' and no indices"
        if self.kind in ROUTER_KINDS and self.site.at != "router":
            return "experts are chosen at a router; correct the site"
        return ""

    def _matrix_fault(self) -> str:
        matrix, width = self.matrix, len(self.vector)
        if (self.kind in MATRIX_KINDS) != (matrix is not None):
            return f"expected a matrix with {' and '.join(MATRIX_KINDS)}, and with nothing else"
        if matrix is None:
            return ""
        if matrix.dtype != torch.float32 or not bool(torch.isfinite(matrix).all()):
            return "the matrix is not finite float32; expected finite values"
        square = self.kind == "affine"
        if matrix.ndim != 2 or matrix.shape[1] != width or not len(matrix) or (square and len(matrix) != width):
            expected = f"[{width}, {width}]" if square else f"[rank, {width}]"
            return f"matrix {list(matrix.shape)} came with {width} units; expected {expected}"
        if self.kind == "subspace":
            gram = matrix.double() @ matrix.double().T
            if float((gram - torch.eye(len(gram), dtype=torch.float64)).abs().max()) > 1e-4:
                return "the rows of the matrix are not orthonormal; expected a basis; orthonormalise it"
        return ""

    def _feature_fault(self) -> str:
        if (self.kind in FEATURE_KINDS) != (self.features is not None):
            return f"expected features with {' and '.join(FEATURE_KINDS)}, and with nothing else"
        if self.features is not None and len(self.vector) != len(self.features.chosen):
            return f"{len(self.vector)} values came for {len(self.features.chosen)} features; expected one each"
        return ""

    @property
    def scale(self) -> float:
        """What the unit multiplies the vector by."""
        if self.unit == "raw":
            return 1.0
        length = float(self.vector.double().norm())
        return (self.mean_norm or 0.0) / length if self.unit == "relative" else 1.0 / length
