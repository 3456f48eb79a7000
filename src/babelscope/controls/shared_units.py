"""Do two languages share more units than chance, where chance keeps how many languages each unit has?"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch

from babelscope.artifacts import NeuronSet
from babelscope.axes import Float64, Int64, Tensor
from babelscope.controls.joint import step_down_p
from babelscope.errors import MeasurementError

TRADES_PER_LANGUAGE = 4
"""Trades between two draws, for each language; a draw has forgotten the one before after about so many."""
SETTLING = 20
"""Draws that are thrown away at the start, which is the observed table."""


class Overlap(NamedTuple):
    """Which languages share units, pair by pair; every matrix is symmetric."""

    shared: Int64[Tensor, "language language"]
    """Units in both sets; the diagonal holds the set sizes."""
    jaccard: Float64[Tensor, "language language"]
    """|A ∩ B| / |A ∪ B|; NaN where both are empty."""
    expected: Float64[Tensor, "language language"]
    """Mean of shared over the drawn tables."""
    lift: Float64[Tensor, "language language"]
    """shared / expected; NaN where nothing is expected, and on the diagonal."""
    p: Float64[Tensor, "language language"]
    """One-sided, corrected over all pairs (step-down maximum on shared draws); NaN on the diagonal and where every
    table shares as many. It takes units as independent, which those of one topic are not: no evidence of a language by
    itself (docs/measurements.md). `Stability.pair_lead` is."""
    draws: int


def overlap(sets: NeuronSet, *, draws: int = 499, seed: int = 0) -> Overlap:
    """Units that every two languages share, against tables with the same margins.

    A rule selects units, and a unit that it selects for n languages gives n(n - 1)/2 pairs something to share. Drawing
    sets from all units forgets that, and finds an overlap in every pair, even where the labels mean nothing. Here each
    drawn table keeps both margins: every unit has as many languages as it has, every language as many units in each
    layer. Tables are drawn by the curveball algorithm (Strona et al. 2014, doi:10.1038/ncomms5114): two languages
    trade the units of a layer that only one of them has.
    Raises MeasurementError for fewer than 19 draws.
    """
    if draws < 19:
        raise MeasurementError(f"draws {draws} came; expected 19 or more, with which p can reach 0.05; draw more")
    flat = sets.mask().flatten(start_dim=1).numpy()
    chosen = np.flatnonzero(flat.any(axis=0))
    observed = shared_units(flat[:, chosen])
    tables = tables_with_margins(flat[:, chosen], chosen // sets.n_neurons, draws=draws, seed=seed)
    null_shared = np.stack([shared_units(table) for table in tables])
    rows, columns = np.triu_indices(len(observed), 1)
    p = step_down_p(observed[rows, columns].tolist(), null_shared[:, rows, columns].T.tolist())
    sizes, expected = observed.diagonal(), null_shared.mean(axis=0)
    square = np.full(observed.shape, np.nan)
    square[rows, columns] = square[columns, rows] = p
    with np.errstate(invalid="ignore", divide="ignore"):
        lift = np.where(expected > 0, observed / expected, np.nan)
        jaccard = observed / (sizes[:, None] + sizes[None, :] - observed)
    np.fill_diagonal(lift, np.nan)
    tables = (torch.from_numpy(table) for table in (observed.astype(np.int64), jaccard, expected, lift, square))
    return Overlap(*tables, draws=draws)


def shared_units(table: np.ndarray) -> np.ndarray:
    """Units in both sets, by pair of languages, from a [language, unit] table of booleans; whole numbers as float64."""
    rows = table.astype(np.float64)
    return rows @ rows.T


def tables_with_margins(table: np.ndarray, layer: np.ndarray, *, draws: int, seed: int) -> Iterator[np.ndarray]:
    """Random [language, unit] tables of booleans with the margins of one; one and the same array, anew each time.

    layer: that of each unit, in rising order.
    """
    table, rng = table.copy(), np.random.default_rng(seed)
    trades = TRADES_PER_LANGUAGE * len(table) if len(table) > 1 else 0
    for draw in range(SETTLING + draws):
        for _ in range(trades):
            first, second = rng.choice(len(table), 2, replace=False)
            trade(table[first], table[second], layer, rng)
        if draw >= SETTLING:
            yield table


def trade(first: np.ndarray, second: np.ndarray, layer: np.ndarray, rng: np.random.Generator) -> None:
    """Deal the units that only one of two languages has out anew, in place, each as many in each layer as before."""
    only = np.flatnonzero(first != second)
    # A number below 1 added to the layer's sorts the units within each layer at random and the layers as they are.
    new_owner = first[only][np.argsort(layer[only] + rng.random(only.size))]
    first[only], second[only] = new_owner, ~new_owner
