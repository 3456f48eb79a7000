"""Whether a language's space moves less the farther it is from the language that is trained."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch

from babelscope.adaptation.source_choice import rank_correlation
from babelscope.adaptation.transfer_runs import FEWEST, TransferMatrix
from babelscope.axes import Float64
from babelscope.controls import rank_p, step_down_p
from babelscope.errors import MeasurementError

GAIN = "gain"
"""Name of the table of what training on the source gave the target: transfer itself."""


class SpaceChange(NamedTuple):
    """How one table of nearness goes with the change of languages' spaces."""

    table: str
    correlation: float
    """Spearman's, of nearness and change over the languages that were not trained; mean over the trained ones."""
    null: float
    """The same where languages change places in the table, mean over draws."""
    p: float
    """Share of such draws with a correlation as far from 0, the table itself counted."""
    p_adjusted: float
    """The same, corrected for the number of tables on shared draws."""
    by_layer: tuple[float, ...]
    """The correlation at the output of each layer."""


def space_changes(
    matrix: TransferMatrix,
    nearness: Mapping[str, Float64[np.ndarray, "source target"]],
    *,
    draws: int = 999,
    seed: int = 0,
) -> list[SpaceChange]:
    """Which nearness goes with how far a language's sentences move when the model is trained on another language.

    Change: 1 - mean cosine of a sentence's mean stream before and after, mean over layers and seeds. nearness: by name,
    larger for languages that are nearer; what each target gained by the training stands beside them as "gain".
    Null: languages change places in the tables, all tables alike.
    Raises MeasurementError for a matrix without changes, or fewer than four sources that learnt something.
    Source: Philippy, Guo and Haddadan 2023, arXiv:2305.02151. Differs: cosine in place of CKA, which does not see a
    rotation or a shift of the whole space; language modelling in place of natural language inference.
    """
    if matrix.moved_by is None or int(matrix.learnt.sum()) < FEWEST:
        raise MeasurementError(
            f"{int(matrix.learnt.sum())} sources that learnt something came, changes "
            f"{'not ' if matrix.moved_by is None else ''}measured; expected {FEWEST} or more, measured; train again"
        )
    by_layer = matrix.moved_by.mean(axis=0)
    change, trained = by_layer.mean(axis=2), np.flatnonzero(matrix.learnt)
    tables, n = {**nearness, GAIN: matrix.gain}, len(change)

    def against(table: np.ndarray, moved: np.ndarray) -> float:
        rows = [np.arange(n) != source for source in trained]
        return float(
            np.mean([rank_correlation(table[i, row], moved[i, row]) for i, row in zip(trained, rows, strict=True)])
        )

    observed = {name: against(table, change) for name, table in tables.items()}
    generator = torch.Generator().manual_seed(seed)
    null: dict[str, list[float]] = {name: [] for name in tables}
    for _ in range(draws):
        order = torch.randperm(n, generator=generator).numpy()
        for name, table in tables.items():
            null[name].append(against(table[np.ix_(order, order)], change))
    distances = {name: np.abs(values) for name, values in null.items()}
    adjusted = step_down_p(
        [abs(value) for value in observed.values()], [values.tolist() for values in distances.values()]
    )
    return [
        SpaceChange(
            table=name,
            correlation=value,
            null=float(np.mean(null[name])),
            p=rank_p(abs(value), distances[name]),
            p_adjusted=p_adjusted,
            by_layer=tuple(against(tables[name], by_layer[..., layer]) for layer in range(by_layer.shape[2])),
        )
        for (name, value), p_adjusted in zip(observed.items(), adjusted, strict=True)
    ]
