"""Which language to train on for another: how well nearness of languages tells it, against chance."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy.stats import rankdata

from babelscope.adaptation.transfer_runs import FEWEST, TransferMatrix
from babelscope.axes import Bool, Float64, Int64
from babelscope.controls import rank_p, step_down_p
from babelscope.errors import MeasurementError

RIDGE = 1.0
"""Penalty of the regression, which is added to the squares of a standardised table summed over the fitted pairs."""
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
    p_adjusted: float
    """The same, corrected for the number of tables on shared draws."""
    gain: float
    """Bits per byte that the nearest source gives, the mean of equally near ones, mean over targets."""
    gain_null: float
    """What a source drawn at random gives."""
    gain_best: float
    """What the best source of each target gives: known only after all were tried."""
    gain_p: float
    """Share of draws whose nearest source gives as much."""
    by_target: tuple[int, ...]
    """The nearest source of each target, by number; the first of equals."""


def choose_sources(
    matrix: TransferMatrix,
    nearness: Mapping[str, Float64[np.ndarray, "source target"]],
    *,
    draws: int = 999,
    seed: int = 0,
) -> list[SourceChoice]:
    """Rank the sources of each target by each table, and by all tables together, and compare with what they gave.

    Sources that learnt nothing gave 0 to all, which is no transfer: they are left out, and so is the target itself.
    nearness: by name, larger for languages that are nearer, such as the model's own similarity or minus a distance.
    All tables together: a ridge regression of the gain, less its target's mean, on standardised tables, fitted on the
    pairs in which a target takes no part (leave one language out), and asked for that target's sources.
    Null: the languages change places in the tables, all tables alike.
    Raises MeasurementError for a table of another shape, or one that is not finite or the same everywhere, and where
    fewer than four sources learnt something.
    """
    gain = matrix.gain
    n = len(gain)
    candidates = matrix.learnt[:, None] & ~np.eye(n, dtype=bool)
    if int(matrix.learnt.sum()) < FEWEST:
        raise MeasurementError(
            f"{int(matrix.learnt.sum())} of {n} sources learnt something, for the others the untouched model was the "
            f"best step; expected {FEWEST} or more to rank; lower the learning rate, or give more text or steps"
        )
    for name, table in nearness.items():
        apart = table[~np.eye(n, dtype=bool)] if table.shape == gain.shape else np.zeros(1)
        if not np.isfinite(apart).all() or np.ptp(apart) == 0:
            raise MeasurementError(
                f"table {name!r} of {list(table.shape)} came; expected {n} × {n} finite numbers, not all the same; "
                "leave it out"
            )

    def tables(order: np.ndarray) -> dict[str, np.ndarray]:
        moved = {name: table[np.ix_(order, order)] for name, table in nearness.items()}
        if len(moved) > 1:
            moved[TOGETHER] = predicted_gains(gain, [*moved.values()], candidates)
        return moved

    given = tables(np.arange(n))
    observed = {name: _against(gain, table, candidates) for name, table in given.items()}
    generator = torch.Generator().manual_seed(seed)
    null: dict[str, list[tuple[float, float]]] = {name: [] for name in given}
    for _ in range(draws):
        for name, table in tables(torch.randperm(n, generator=generator).numpy()).items():
            null[name].append(_against(gain, table, candidates))
    by_rank, by_choice = ({name: [values[side] for values in rows] for name, rows in null.items()} for side in (0, 1))
    adjusted = step_down_p([value for value, _ in observed.values()], [*by_rank.values()])
    best = np.where(candidates, gain, -np.inf).max(axis=0)
    return [
        SourceChoice(
            table=name,
            correlation=correlation,
            null=float(np.mean(by_rank[name])),
            p=rank_p(correlation, by_rank[name]),
            p_adjusted=p_adjusted,
            gain=chosen_gain,
            gain_null=float(gain[candidates].mean()),
            gain_best=float(best.mean()),
            gain_p=rank_p(chosen_gain, by_choice[name]),
            by_target=tuple(nearest_sources(given[name], candidates).tolist()),
        )
        for (name, (correlation, chosen_gain)), p_adjusted in zip(observed.items(), adjusted, strict=True)
    ]


def nearest_sources(
    table: Float64[np.ndarray, "source target"], candidates: Bool[np.ndarray, "source target"]
) -> Int64[np.ndarray, " target"]:
    """The nearest candidate of each target, by number; the first of equals."""
    return np.where(candidates, table, -np.inf).argmax(axis=0)


def rank_correlation(x: Float64[np.ndarray, " pair"], y: Float64[np.ndarray, " pair"]) -> float:
    """Spearman's; 0 where one side is constant."""
    ranks = [rankdata(side) - (len(side) + 1) / 2 for side in (x, y)]
    length = np.sqrt((ranks[0] @ ranks[0]) * (ranks[1] @ ranks[1]))
    return float(ranks[0] @ ranks[1] / length) if length > 0 else 0.0


def _against(gain: np.ndarray, table: np.ndarray, candidates: np.ndarray) -> tuple[float, float]:
    """Mean rank correlation over targets, 0 where one side is constant, and the mean gain of the nearest sources."""
    correlations = []
    for near, given, among in zip(table.T, gain.T, candidates.T, strict=True):
        correlations.append(rank_correlation(near[among], given[among]))
    near = np.where(candidates, table, -np.inf)
    # A table such as that of scripts has many equals, of which the order of the languages must not choose one.
    nearest = near == near.max(axis=0)
    return float(np.mean(correlations)), float(((gain * nearest).sum(axis=0) / nearest.sum(axis=0)).mean())


def predicted_gains(
    gain: Float64[np.ndarray, "source target"],
    tables: Sequence[Float64[np.ndarray, "source target"]],
    candidates: Bool[np.ndarray, "source target"],
) -> Float64[np.ndarray, "source target"]:
    """Gains of each target's sources by ridge regression on tables, fitted on the pairs of all other languages.

    Gains are fitted and predicted less their target's mean, in bits per byte. candidates: the pairs that are fitted.
    """
    n = len(gain)
    apart = ~np.eye(n, dtype=bool)
    x = np.stack([(table - table[apart].mean()) / table[apart].std() for table in tables], axis=-1)
    predicted = np.zeros((n, n))
    for target in range(n):
        designs, responses = [], []
        for other in range(n):
            among = candidates[:, other] & (np.arange(n) != target)
            if other != target and among.any():
                designs.append(x[among, other])
                responses.append(gain[among, other] - gain[among, other].mean())
        design, response = np.concatenate(designs), np.concatenate(responses)
        weights = np.linalg.solve(design.T @ design + RIDGE * np.eye(len(tables)), design.T @ response)
        predicted[:, target] = x[:, target] @ weights
    return predicted
