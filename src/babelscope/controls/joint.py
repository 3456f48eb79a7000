"""Tests over a whole table of results: values on shared draws, sets paired with texts, successes beside others'."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from babelscope.axes import Float64, Tensor
from babelscope.controls.intervals import TIES
from babelscope.errors import MeasurementError

PAIRINGS = 9_999
"""Random pairings of sets with texts that one test draws; its smallest p is 1/10,000."""


def step_down_p(values: Sequence[float], draws: Sequence[Sequence[float]]) -> list[float]:
    """One-sided p of several values at once, corrected for their number by the largest of each shared draw.

    values: one per test. draws: one row per test, the same number of draws in each; draw d of every row belongs
    together. Each test's value and draws are standardised together, value included, so that all have one scale; the
    values are then taken from the largest down, each against the largest of the tests that are left in each draw
    (Westfall and Young 1993, free step-down maxT). The smallest p is 1/(draws + 1) whatever the number of tests,
    where Holm's rule on ranks would need that many times more draws. A draw that equals the value but for its last
    bits reaches it. NaN where a value or a draw is NaN, or where a test does not vary; such a test does not count.
    Raises MeasurementError where tests have different numbers of draws.
    """
    if len({len(row) for row in draws}) > 1 or len(draws) != len(values):
        raise MeasurementError(
            f"{len(values)} values with {sorted({len(row) for row in draws})} draws came; expected equally many draws "
            "for every value; draw again with one number"
        )
    together = np.column_stack([np.asarray(values, float), np.asarray(draws, float)]) if values else np.zeros((0, 2))
    spread = together.std(axis=1, keepdims=True)
    varies = spread > TIES * np.abs(together).max(axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        scaled = np.where(varies, (together - together.mean(axis=1, keepdims=True)) / spread, np.nan)
    tested = np.flatnonzero(np.isfinite(scaled).all(axis=1))
    adjusted, least = [math.nan] * len(values), 0.0
    ranked = tested[np.argsort(-scaled[tested, 0], kind="stable")]
    for place, test in enumerate(ranked):
        largest = scaled[ranked[place:], 1:].max(axis=0)
        least = max(least, (1 + int(reaches(largest, scaled[test, 0]).sum())) / (largest.size + 1))
        adjusted[test] = least
    return adjusted


def pairing_p(table: Float64[Tensor, "language language"], *, seed: int) -> float:
    """Do rows belong to the columns of their own name? p of the diagonal among random pairings of rows with columns.

    The statistic is the mean of the diagonal after row and column means are taken off, so that a set that harms every
    text, or a text that every set harms, counts for nothing. p = (1 + #{pairings that reach it}) / (pairings + 1);
    under labels that mean nothing every pairing is equally likely, so the test is exact. NaN for fewer than four
    languages, whose 6 pairings cannot reach 0.05, and where a cell is NaN.
    """
    cells = table.numpy()
    if len(cells) < 4 or not np.isfinite(cells).all():
        return math.nan
    centred = cells - cells.mean(axis=0) - cells.mean(axis=1, keepdims=True) + cells.mean()
    rng, rows = np.random.default_rng(seed), np.arange(len(cells))
    columns = rng.permuted(np.tile(rows, (PAIRINGS, 1)), axis=1)
    paired = centred[rows, columns].mean(axis=1)
    return (1 + int(reaches(paired, np.diagonal(centred).mean()).sum())) / (PAIRINGS + 1)


def reaches(draws: np.ndarray, value: float) -> np.ndarray:
    """Where a draw is as large as the value; equal but for the last bits, the same sum in another order, is equal."""
    return (draws >= value) | np.isclose(draws, value, rtol=TIES, atol=TIES)


def more_successes_p(successes: int, n: int, control_successes: int, control_n: int) -> float:
    """One-sided p that n trials succeed more often than a control's: Fisher's exact test, the control's error included.

    Raises MeasurementError for counts below zero or above their number.
    """
    for count, trials in ((successes, n), (control_successes, control_n)):
        if not 0 <= count <= trials:
            raise MeasurementError(f"{count} successes of {trials}; expected 0 <= successes <= n; count again")
    from scipy.stats import fisher_exact

    table = [[successes, n - successes], [control_successes, control_n - control_successes]]
    test: Any = fisher_exact(table, alternative="greater")
    return float(test.pvalue)


def paired_successes_p(successes: Sequence[bool], controls: Sequence[Sequence[bool]]) -> float:
    """One-sided p that the same units succeed more often than under each of several controls.

    Against one control: the exact sign test, whether of the units whose two outcomes differ more than half succeed only
    without it. The largest of these p over the controls: it is small only where each of them is beaten, and valid
    however alike the controls' outcomes of a unit are, where a test of all outcomes together would count them as so
    many units. Units must be independent of each other. NaN without a control.
    Raises MeasurementError where a control has another number of units.
    """
    from scipy.stats import binomtest

    if any(len(control) != len(successes) for control in controls):
        raise MeasurementError(
            f"{len(successes)} units and controls of {sorted(set(map(len, controls)))} came; expected the same units "
            "in each; measure all of them"
        )
    values = list[float]()
    for control in controls:
        gained = sum(bool(a) > bool(b) for a, b in zip(successes, control, strict=True))
        differing = sum(bool(a) != bool(b) for a, b in zip(successes, control, strict=True))
        values.append(float(binomtest(gained, differing, alternative="greater").pvalue) if differing else 1.0)
    return max(values, default=math.nan)
