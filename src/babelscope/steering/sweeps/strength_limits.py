"""The strength at which a way of steering breaks the model's fluency."""

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from babelscope.errors import MeasurementError
from babelscope.steering.sweeps.curve import CurvePoint
from babelscope.steering.sweeps.fluent_choice import LEAST_DISTINCT, LEAST_RATIO, MOST_RATIO


class Dose(NamedTuple):
    """One point of a dose–response curve; a CurvePoint serves as well."""

    strength: float
    perplexity_ratio: float
    """Perplexity of the answers over that of native ones."""
    distinct4_ratio: float
    """Distinct 4-grams of the answers over those of native ones."""


class StrengthLimit(NamedTuple):
    """Where fluency breaks on one curve."""

    strength: float | None
    """The smallest strength measured that breaks it; None where none did."""
    cause: Literal["perplexity", "repetition", "both", "none"]
    """repetition: few distinct 4-grams, or answers far likelier than native ones, as loops are."""
    fluent_up_to: float | None
    """The largest strength measured below it; None where the first one broke already."""
    measured: tuple[float, ...]
    """All strengths of the curve, by size: the limit lies between two of them."""


def strength_limit(
    points: Sequence[Dose | CurvePoint],
    *,
    max_ratio: float | int = MOST_RATIO,
    min_ratio: float | int = LEAST_RATIO,
    min_distinct: float | int = LEAST_DISTINCT,
) -> StrengthLimit:
    """The smallest strength at which the perplexity ratio leaves its band or distinct-4 falls below `min_distinct`.

    Strengths are compared by size, without their sign; a strength measured more than once breaks if any of its points
    does. A ratio that is NaN, for answers without a token, is broken. Only the strengths measured are known: a curve
    may recover above the limit, and the true one is anywhere between it and `fluent_up_to`.
    points: of one method at one layer; use `by_layer` for more.
    Raises MeasurementError without points.
    """
    if not points:
        raise MeasurementError("no point of a dose–response curve came; expected at least one; measure some")
    fluent: float | None = None
    sizes = sorted({abs(float(point.strength)) for point in points})
    for size in sizes:
        points_at_size = [point for point in points if abs(point.strength) == size]
        odd = any(not point.perplexity_ratio <= max_ratio for point in points_at_size)
        likely = any(point.perplexity_ratio < min_ratio for point in points_at_size)
        loops = likely or any(not point.distinct4_ratio >= min_distinct for point in points_at_size)
        if odd or loops:
            cause = "both" if odd and loops else "perplexity" if odd else "repetition"
            return StrengthLimit(size, cause, fluent, tuple(sizes))
        fluent = size
    return StrengthLimit(None, "none", fluent, tuple(sizes))


def by_layer(points: Iterable[CurvePoint]) -> dict[int, list[CurvePoint]]:
    """A sweep's points as one curve per layer."""
    curves: dict[int, list[CurvePoint]] = {}
    for point in points:
        curves.setdefault(point.layer, []).append(point)
    return curves
