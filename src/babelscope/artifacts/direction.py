"""One vector at one site: the way from one language to another."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from babelscope.artifacts.gate import Condition, Gate, Pool, Schedule
from babelscope.artifacts.hub import HubArtifact
from babelscope.artifacts.identity import Origin
from babelscope.artifacts.json_entries import as_list, as_number, as_whole
from babelscope.artifacts.operation import Operation, VectorUnit
from babelscope.artifacts.recipe import SteeringRecipe
from babelscope.artifacts.shown import shown_by
from babelscope.artifacts.storage import open_folder, origin_config, save_folder, write_card
from babelscope.axes import Float32, Tensor
from babelscope.errors import ArtifactError
from babelscope.languages import Language
from babelscope.sites import Site

NOUN = "Direction"
_ALWAYS, _STEADY = Gate(), Schedule()


@dataclass(frozen=True, eq=False)
class Direction(HubArtifact):
    """A vector with its site, its languages and the scale of the stream it lives in.

    Raises ArtifactError for a vector that is not one finite, non-zero float32 row, a mean_norm not above 0, or an
    ordinary form without a median_norm above 0.
    """

    __repr__ = shown_by("origin.model", "site", "source", "target", "norm", "form")

    vector: Float32[Tensor, " hidden"]
    site: Site
    target: str
    """Language the vector points to."""
    source: tuple[str, ...]
    """Languages it points away from."""
    mean_norm: float | int
    """Mean over tokens of the norm at the site, target and source text together, BOS and other special tokens out."""
    origin: Origin
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """How it was made."""
    form: Literal["whole", "ordinary"] = "whole"
    """whole: of every token and unit; ordinary: first tokens apart, massive units (`left_out`) zero in the vector."""
    median_norm: float | int | None = None
    """Median length of ordinary tokens: first tokens apart, and without the units that alone hold more than a tenth of
    a token's squared length. None where that was not observed."""
    left_out: tuple[int, ...] = ()
    """Massive units, the largest first."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "target", Language.parse(self.target))
        object.__setattr__(self, "source", tuple(Language.parse(tag) for tag in self.source))
        vector = self.vector
        if vector.ndim != 1 or vector.dtype != torch.float32 or not bool(torch.isfinite(vector).all()):
            raise ArtifactError(
                f"direction at '{self.site}': {vector.dtype} {list(vector.shape)}; expected one finite float32 row"
            )
        if not bool(vector.any()):
            raise ArtifactError(f"direction at '{self.site}': the vector is zero; expected a direction")
        if not 0 < self.mean_norm < math.inf:
            raise ArtifactError(f"direction at '{self.site}': mean_norm {self.mean_norm}; expected finite, above 0")
        if self.median_norm is not None and not 0 <= self.median_norm < math.inf:
            raise ArtifactError(
                f"direction at '{self.site}': median_norm {self.median_norm}; expected finite, 0 or more"
            )
        if self.form not in ("whole", "ordinary") or (self.form == "ordinary" and not self.median_norm):
            raise ArtifactError(
                f"direction at '{self.site}': form {self.form!r}, median_norm {self.median_norm}; expected "
                "'whole', or 'ordinary' with a median_norm above 0"
            )
        if any(not 0 <= unit < len(vector) for unit in self.left_out) or bool(vector[list(self.left_out)].any()):
            raise ArtifactError(
                f"direction at '{self.site}': left_out {self.left_out}; expected units of 0–{len(vector) - 1} at "
                "which the vector is zero"
            )

    @property
    def scale(self) -> float:
        """The length that a relative strength is a share of: `median_norm` in the ordinary form, else `mean_norm`."""
        return float(self.median_norm if self.form == "ordinary" and self.median_norm else self.mean_norm)

    @property
    def largest_share(self) -> float:
        """Share of the squared length that the largest unit holds; 1/units where all are alike."""
        square = self.vector.double().square()
        return float(square.max() / square.sum())

    @property
    def norm(self) -> float:
        """Euclidean length of the vector."""
        return float(self.vector.double().norm())

    def add(
        self,
        strength: float | int = 0.5,
        unit: VectorUnit = "relative",
        *,
        gate: Gate = _ALWAYS,
        schedule: Schedule = _STEADY,
    ) -> Operation:
        """The operation that adds this vector.

        unit: "relative" (strength is a share of `scale`), "unit" (a length), "raw" (a multiple of the vector).
        """
        return Operation(
            self.site,
            "add",
            self.vector,
            strength=strength,
            unit=unit,
            mean_norm=self.scale,
            gate=gate,
            schedule=schedule,
            origin=self.origin,
        )

    def project_out(
        self, strength: float | int = 1.0, *, gate: Gate = _ALWAYS, schedule: Schedule = _STEADY
    ) -> Operation:
        """The operation that takes a share of the component along this vector away; all of it at strength 1."""
        return Operation(
            self.site,
            "project_out",
            self.vector,
            strength=strength,
            gate=gate,
            schedule=schedule,
            origin=self.origin,
        )

    def condition(self, threshold: float | int, *, above: bool = True, pool: Pool = "mean") -> Condition:
        """The question whether a prompt's cosine with this vector, at its site, reaches a threshold."""
        return Condition(
            self.site, self.vector, threshold, above, pool, self.form, self.left_out if self.form == "ordinary" else ()
        )

    def recipe(
        self,
        strength: float | int = 0.5,
        unit: VectorUnit = "relative",
        *,
        gate: Gate = _ALWAYS,
        schedule: Schedule = _STEADY,
    ) -> SteeringRecipe:
        """`add` as a recipe, whose card names how the vector was made."""
        parameters = {**self.parameters, "target": self.target, "from": list(self.source)}
        return SteeringRecipe((self.add(strength, unit, gate=gate, schedule=schedule),), self.origin, parameters)

    def save(self, path: str | Path) -> Path:
        """Write the folder atomically; raises ArtifactError if the path is taken."""
        config = {
            "origin": origin_config(self.origin),
            "languages": [self.target, *self.source],
            "site": str(self.site),
            "target": self.target,
            "source": list(self.source),
            "mean_norm": self.mean_norm,
            "median_norm": self.median_norm,
            "form": self.form,
            "left_out": list(self.left_out),
            "parameters": dict(self.parameters),
        }
        median = "not observed" if self.median_norm is None else f"{self.median_norm:.4g}"
        lines = [
            f"At `{self.site}`, from {', '.join(self.source) or 'nothing named'} to {self.target}: "
            f"length {self.norm:.4g}; norm of the stream, mean over all tokens, {self.mean_norm:.4g}; median over "
            f"ordinary tokens {median}.",
            "",
            f"Form: {self.form}, so that a relative strength is a share of {self.scale:.4g}. The largest unit holds "
            f"{self.largest_share:.3f} of the vector's squared length.",
        ]
        if self.left_out:
            lines.append(f"Massive units, zero in the vector: {', '.join(map(str, self.left_out))}.")
        tensors = {"vector": self.vector.clone()}
        return save_folder(path, NOUN, config, tensors, write_card(NOUN, config, lines))

    @classmethod
    def load(cls, path: str | Path, *, verify: bool = True) -> "Direction":
        """Read a folder; raises ArtifactError for anything damaged or of another kind.

        verify: compare the tensors' bytes with their hash; False saves reading a huge file once more, and is logged.
        """
        with open_folder(path, NOUN, verify=verify) as saved:
            target, source = saved.text("target"), saved.texts("source")
            if saved.texts("languages") != (target, *source):
                raise saved.fault("languages are not the target and the source")
            # Earlier versions knew the whole form only.
            form = saved.text("form") if "form" in saved.config else "whole"
            median = saved.entry("median_norm") if "median_norm" in saved.config else None
            left_out = saved.entry("left_out") if "left_out" in saved.config else []
            return cls(
                vector=saved.tensor("vector", torch.float32, None),
                site=Site.parse(saved.text("site")),
                target=target,
                source=source,
                mean_norm=saved.number("mean_norm"),
                origin=saved.origin(),
                parameters=saved.table("parameters"),
                form=form,  # pyright: ignore[reportArgumentType]
                median_norm=None if median is None else as_number(median, "median_norm"),
                left_out=tuple(as_whole(unit, "left_out") for unit in as_list(left_out, "left_out")),
            )
