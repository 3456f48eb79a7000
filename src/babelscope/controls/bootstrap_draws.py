"""Draws with replacement of what is independent: documents, sentences, questions; shards are in `resampling`."""

import numpy as np
import torch

from babelscope.axes import Bool, Float, Int64, Tensor
from babelscope.controls.intervals import Interval, percentile_interval


def draw_counts(n: int, resamples: int, rng: np.random.Generator) -> Int64[np.ndarray, "resample item"]:
    """How often each of n items is drawn, so that a product with their sums is the sum of a resample."""
    return rng.multinomial(n, np.full(n, 1 / n), size=resamples)


def draw_items(n: int, resamples: int, generator: torch.Generator) -> Int64[Tensor, "resample item"]:
    """Which of n items are drawn, for a statistic that is no sum over them."""
    return torch.randint(n, (resamples, n), generator=generator)


def mean_interval(
    values: Float[np.ndarray, " item"] | Bool[np.ndarray, " item"], resamples: int, rng: np.random.Generator
) -> Interval:
    """95 % percentile interval of the mean over redrawn items."""
    return percentile_interval(values[rng.integers(len(values), size=(resamples, len(values)))].mean(axis=1))
