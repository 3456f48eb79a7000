"""Which language to train on for another: how well nearness of languages tells it, against chance."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from scipy.stats import rankdata

from babelscope.adaptation.transfer_runs import TransferMatrix
from babelscope.axes import Float64
from babelscope.controls import rank_p
from babelscope.errors import MeasurementError

RIDGE = 1.0
"""Penalty of the regression, in units of the predictors' variance times pairs."""
TOGETHER = "all, by regression"
"""Name of the choice by all tables together."""


class SourceChoice(NamedTuple):
    """How well one table of nearness tells the best source for each target."""

    table: str
    correlation: float
    """Spearman's, of nearness and gain over the sources of a target; mean over targets."""
    null: float
    """The same where languages change places in the table, mean over draws."""
    p: float
    """Share of such draws with a correlation as high, the table itself counted."""
    gain: float
    """Bits per byte that the nearest source gives, mean over targets."""
    gain_null: float
    """What a source drawn at random gives."""
    gain_best: float
    """What the best source of each target gives: known only after all were tried."""
    gain_p: float
    """Share of draws whose nearest source gives as much."""
    by_target: tuple[int, ...]
    """The source chosen for each target, by number."""


def choose_sources(
    matrix: TransferMatrix,
    nearness: Mapping[str, Float64[np.ndarray, "source target"]],
    *,
    draws: int = 999,
    seed: int = 0,
) -> list[SourceChoice]:
    """Rank the sources of each target by each table, and by all tables together, and compare with what they gave.

    nearness: by name, larger for languages that are nearer, such as the model's own similarity or minus a distance.
    All tables together: a ridge regression of the gain, less its target's mean, on standardised tables, fitted on the
    pairs in which a target takes no part (leave one language out), and asked for that target's sources.
    Null: the languages change places in the tables, all tables alike. Training on the target itself is left out.
    Raises MeasurementError for a table of another shape, or one that is not finite or the same everywhere.
    """
    gain = matrix.gain
    n = len(gain)
    apart = ~np.eye(n, dtype=bool)
    for name, table in nearness.items():
        if table.shape != gain.shape or not np.isfinite(table[apart]).all() or np.ptp(table[apart]) == 0:
            raise MeasurementError(
                f"table {name!r} of {list(table.shape)} came; expected {n} × {n} finite numbers, not all the same; "
                "leave it out"
            )
    generator = torch.Generator().manual_seed(seed)
    orders = [torch.randperm(n, generator=generator).numpy() for _ in range(draws)]

    def tables(order: np.ndarray) -> dict[str, np.ndarray]:
        moved = {name: table[np.ix_(order, order)] for name, table in nearness.items()}
        return {**moved, **({TOGETHER: predicted_gains(gain, [*moved.values()])} if len(moved) > 1 else {})}

    identity = np.arange(n)
    observed = {name: _against(gain, table) for name, table in tables(identity).items()}
    null: dict[str, list[tuple[float, float]]] = {name: [] for name in observed}
    for order in orders:
        for name, table in tables(order).items():
            null[name].append(_against(gain, table))
    sources = np.where(apart, gain, np.nan)
    mean_gain, best_gain = float(np.nanmean(sources)), float(np.nanmax(sources, axis=0).mean())
    choices = []
    for name, table in tables(identity).items():
        by_rank, by_choice = np.array(null[name]).T
        correlation, chosen_gain = observed[name]
        choices.append(
            SourceChoice(
                table=name,
                correlation=correlation,
                null=float(by_rank.mean()),
                p=rank_p(correlation, by_rank),
                gain=chosen_gain,
                gain_null=mean_gain,
                gain_best=best_gain,
                gain_p=rank_p(chosen_gain, by_choice),
                by_target=tuple(int(k) for k in nearest_sources(table)),
            )
        )
    return choices


def nearest_sources(table: Float64[np.ndarray, "source target"]) -> np.ndarray:
    """The nearest other language of each target."""
    return np.where(np.eye(len(table), dtype=bool), -np.inf, table).argmax(axis=0)


def _against(gain: np.ndarray, table: np.ndarray) -> tuple[float, float]:
    """Mean rank correlation over targets, 0 where one side is constant, and the mean gain of the nearest sources."""
    n = len(gain)
    apart = ~np.eye(n, dtype=bool)
    sides = [rankdata(side.T[apart].reshape(n, n - 1), axis=1) - n / 2 for side in (table, gain)]
    lengths = np.sqrt((sides[0] ** 2).sum(axis=1) * (sides[1] ** 2).sum(axis=1))
    products = (sides[0] * sides[1]).sum(axis=1)
    correlation = np.divide(products, lengths, out=np.zeros(n), where=lengths > 0)
    chosen = nearest_sources(table)
    return float(correlation.mean()), float(gain[chosen, np.arange(n)].mean())


def predicted_gains(
    gain: Float64[np.ndarray, "source target"], tables: list[Float64[np.ndarray, "source target"]]
) -> Float64[np.ndarray, "source target"]:
    """Gains of each target's sources by ridge regression on tables, fitted on the pairs of all other languages."""
    n = len(gain)
    apart = ~np.eye(n, dtype=bool)
    columns = [np.where(apart, table, np.nan) for table in tables]
    x = np.stack([(table - np.nanmean(table)) / (np.nanstd(table) or 1.0) for table in columns], axis=-1)
    predicted = np.zeros((n, n))
    for target in range(n):
        others = [k for k in range(n) if k != target]
        fitted, expected = [], []
        for other in others:
            sources = [k for k in others if k != other]
            fitted.append(x[sources, other])
            expected.append(gain[sources, other] - gain[sources, other].mean())
        design, response = np.concatenate(fitted), np.concatenate(expected)
        penalty = RIDGE * np.eye(design.shape[1])
        weights = np.linalg.solve(design.T @ design + penalty, design.T @ response)
        predicted[others, target] = x[others, target] @ weights
    return predicted
