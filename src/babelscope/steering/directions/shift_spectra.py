"""Singular directions of the way from one language to another: how many carry it, how stable, at which layers."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from babelscope.artifacts.shown import shown_by
from babelscope.axes import Float64, Tensor
from babelscope.errors import MeasurementError
from babelscope.steering.directions.document_samples import DocumentMeans
from babelscope.steering.directions.subspaces import nearest_layers

Pairing = Literal["parallel", "comparable"]
"""Documents with one id are subtracted from each other, or the source's mean from each of the target's documents."""
MOST = 8
"""Directions at most, where the rank is left to the eigengap."""


@dataclass(frozen=True, eq=False)
class ShiftSpectrum:
    """The singular directions of differences target - source, not centred."""

    __repr__ = shown_by()

    singular: Float64[Tensor, " component"]
    basis: Float64[Tensor, "rank unit"]
    """The leading right singular vectors, orthonormal rows."""
    gap: float
    """Eigengap behind the last direction, as a share of the whole: (σ_r² - σ_{r+1}²) / Σ σ²; 1 for all of it in r."""
    mass: float
    """Share of Σ σ² in the basis."""
    stability: float
    """Mean squared cosine between the bases of every second row and of the others; 1 for the same subspace.

    NaN where a half has fewer directions than the basis: it could not be as large as 1 then, whatever the languages do.
    """
    rows: int

    @property
    def rank(self) -> int:
        """Directions."""
        return len(self.basis)


def language_differences(
    samples: DocumentMeans, target: str, source: str, pairing: Pairing = "parallel"
) -> Float64[Tensor, "row unit"]:
    """Target - source, a row per pair of parallel documents; of comparable text a row per document of the target.

    Raises CorpusError where "parallel" finds no document id in both languages.
    """
    if pairing == "comparable":
        return samples.of(target) - samples.mean(source)
    first, second = samples.pairs(target, source)
    return first - second


def shift_spectrum(rows: Float64[Tensor, "row unit"], rank: int | None = None) -> ShiftSpectrum:
    """Singular value decomposition of differences of two languages, and how many directions carry them.

    rank: None takes the i ≤ 8 with the largest σ_i / σ_{i+1} (the first of equals), and no more than the effective rank
    exp(-Σ p ln p), p = σ²/Σσ², rounded up.
    Raises MeasurementError for fewer than two rows, rows that are all zero or not finite, or a rank that is not there.
    Source: after Neural FOXP2, arXiv:2602.00945; how its gap, effective rank and stability are weighed is ours.
    """
    if len(rows) < 2 or not bool(torch.isfinite(rows).all()):
        raise MeasurementError(f"{len(rows)} differences came; expected two or more that are finite; add documents")
    _, singular, right = torch.linalg.svd(rows, full_matrices=False)
    energy = singular.square()
    total = float(energy.sum())
    available = _directions(singular, rows.shape)
    if total == 0:
        raise MeasurementError("the languages' documents do not differ here; expected a difference; take another layer")
    chosen = _eigengap_rank(singular, available) if rank is None else rank
    if not 1 <= chosen <= available:
        raise MeasurementError(f"rank {chosen} came; the differences have {available}; expected 1 to {available}")
    after = float(energy[chosen]) if chosen < len(energy) else 0.0
    return ShiftSpectrum(
        singular=singular,
        basis=right[:chosen].contiguous(),
        gap=(float(energy[chosen - 1]) - after) / total,
        mass=float(energy[:chosen].sum()) / total,
        stability=_half_agreement(rows, chosen),
        rows=len(rows),
    )


def _directions(singular: Float64[Tensor, " component"], shape: Sequence[int]) -> int:
    """How many singular values are more than rounding."""
    return int((singular > singular[0] * max(shape) * torch.finfo(torch.float64).eps).sum())


def _half_agreement(rows: Float64[Tensor, "row unit"], rank: int) -> float:
    """Mean squared cosine between the leading directions of every second row and of the others; NaN for too few."""
    bases = []
    for half in (rows[::2], rows[1::2]):
        _, singular, right = torch.linalg.svd(half, full_matrices=False)
        if _directions(singular, half.shape) < rank:
            return math.nan
        bases.append(right[:rank])
    return float((bases[0] @ bases[1].T).square().sum()) / rank


def _eigengap_rank(singular: Float64[Tensor, " component"], available: int) -> int:
    share = singular[:available].square() / singular.square().sum()
    effective = float(torch.exp(-(share * share.log()).sum()))
    # Behind all directions there is nothing to compare with; behind the last that is not rounding, an endless gap.
    following = torch.where(torch.arange(1, len(singular)) < available, singular[1:], 0.0)
    ratio = (singular[:-1] / following)[: min(MOST, available)]
    # Ratios that differ by rounding are equal, and the first of them counts.
    gap_at = int((ratio >= ratio.max() * (1 - 1e-9)).int().argmax()) + 1 if len(ratio) else 1
    # exp(0) comes out a little above 1, and must not be rounded up to 2.
    return min(gap_at, math.ceil(effective - 1e-9))


def eigengap_window(gaps: Float64[Tensor, " depth"]) -> range:
    """The run of neighbouring layers about the largest eigengap that lie above the middle of smallest and largest.

    The first of equally large ones; the same for the same gaps. Ours: the paper chooses its window by experiment.
    """
    return nearest_layers(-gaps)
