"""Intervals, ranks and corrections for many tests."""

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import torch

from babelscope.axes import Float64, Tensor
from babelscope.errors import MeasurementError

Numbers = Tensor | np.ndarray | Sequence[float | int]
TIES = 1e-12
"""Values nearer than this share of themselves are the same."""


class Interval(NamedTuple):
    """Lower and upper end; NaN where nothing was measured."""

    low: float
    """Lower end."""
    high: float
    """Upper end."""


def percentile_interval(samples: Numbers, level: float = 0.95) -> Interval:
    """The middle `level` of some samples: quantiles (1 - level)/2 and (1 + level)/2, linear between samples.

    NaN samples are left out; where none is left both ends are NaN.
    """
    values = _float64(samples)
    values = values[~np.isnan(values)]
    if values.size == 0:
        return Interval(math.nan, math.nan)
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))


def wilson_interval(successes: int, n: int, level: float = 0.95) -> Interval:
    """Wilson's score interval of a share: (s + z²/2 ± z √(s (n - s)/n + z²/4)) / (n + z²).

    Raises MeasurementError unless 0 <= successes <= n and n > 0.
    """
    if not 0 <= successes <= n or n == 0:
        raise MeasurementError(f"{successes} successes of {n}; expected 0 <= successes <= n and n > 0; count again")
    z = NormalDist().inv_cdf((1 + level) / 2)
    centre = successes + z**2 / 2
    arm = z * math.sqrt(successes * (n - successes) / n + z**2 / 4)
    return Interval(max(0.0, (centre - arm) / (n + z**2)), min(1.0, (centre + arm) / (n + z**2)))


def ratio_interval(parts: Numbers, sizes: Numbers, level: float = 0.95) -> Interval:
    """Of Σ parts / Σ sizes over independent units, such as nats and bytes of documents; in the same order.

    By the linear form of the ratio with what each unit leaves when the others alone say what the ratio is,
    Σ ((part_i − r · size_i) / (1 − w_i))² / (Σ size_i)² with w_i = size_i / Σ size_i, and Student's t with
    1 / Σ w_i² − 1 degrees of freedom: few long documents count as few. Units of size 0 are left out. NaN where that
    leaves fewer than two units, or one unit that is all.
    Source: HC3 of MacKinnon and White 1985, doi:10.1016/0304-4076(85)90158-7; Kish 1965 for the number of units.
    """
    from scipy.stats import t

    part, size = _float64(parts), _float64(sizes)
    part, size = part[size > 0], size[size > 0]
    if len(size) < 2:
        return Interval(math.nan, math.nan)
    weight, ratio = size / size.sum(), part.sum() / size.sum()
    variance = np.square((part - ratio * size) / (1 - weight)).sum() / size.sum() ** 2
    arm = float(t.ppf((1 + level) / 2, 1 / np.square(weight).sum() - 1)) * math.sqrt(variance)
    return Interval(float(ratio - arm), float(ratio + arm))


def rank_p(value: float, draws: Numbers) -> float:
    """One-sided p of a value among random draws, large being extreme: (1 + #{draws >= value}) / (R + 1).

    A draw equal to the value but for its last bits, 1e-12 of it, counts as equal: the same sum in another order. At
    least 19 draws are needed to reach 0.05.  NaN if the value or a draw is.
    """
    draw_values = _float64(draws)
    if math.isnan(value) or np.isnan(draw_values).any():
        return math.nan
    reached = (draw_values >= value) | np.isclose(draw_values, value, rtol=TIES, atol=0)
    return (1 + int(reached.sum())) / (draw_values.size + 1)


def holm(p: Numbers) -> Float64[Tensor, " test"]:
    """Holm's p-values over a family of tests: max over i <= t of min(1, (m - i + 1) P_(i)), in the order given.

    NaN is no test: it stays NaN and does not count in m.
    """
    return _stepwise(p, lambda ranked: np.minimum(1, np.maximum.accumulate(ranked * np.arange(ranked.size, 0, -1))))


def benjamini_hochberg(p: Numbers) -> Float64[Tensor, " test"]:
    """Benjamini and Hochberg's q-values over a family of tests: min over t >= i of m P_(t) / t, in the order given.

    NaN is no test: it stays NaN and does not count in m.
    """

    def step_up(ranked: np.ndarray) -> np.ndarray:
        scaled = ranked * ranked.size / np.arange(1, ranked.size + 1)
        return np.minimum(1, np.minimum.accumulate(scaled[::-1])[::-1])

    return _stepwise(p, step_up)


def _stepwise(p: Numbers, correct: Callable[[np.ndarray], np.ndarray]) -> Float64[Tensor, " test"]:
    values = _float64(p)
    defined = np.flatnonzero(~np.isnan(values))
    order = defined[np.argsort(values[defined], kind="stable")]
    values[order] = correct(values[order])
    return torch.from_numpy(values)


def _float64(samples: Numbers) -> np.ndarray:
    """A flat copy."""
    values = samples.numpy() if isinstance(samples, Tensor) else samples
    return np.array(values, dtype=np.float64).reshape(-1)
