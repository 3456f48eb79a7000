"""Draws with replacement are those of numpy and torch by their seed, and their interval holds the mean."""

import numpy as np
import torch

from babelscope.controls.bootstrap_draws import draw_counts, draw_items, mean_interval


def test_each_resample_draws_as_many_items_as_there_are():
    counts = draw_counts(7, 50, np.random.default_rng(0))
    assert counts.shape == (50, 7) and (counts.sum(axis=1) == 7).all() and (counts > 1).any()
    items = draw_items(7, 50, torch.Generator().manual_seed(0))
    assert items.shape == (50, 7) and items.unique().tolist() == list(range(7))


def test_the_interval_of_a_mean_is_that_of_the_redrawn_means():
    values = np.arange(20.0)
    low, high = mean_interval(values, 400, np.random.default_rng(3))
    means = [values[places].mean() for places in np.random.default_rng(3).integers(20, size=(400, 20))]
    assert np.allclose((low, high), np.quantile(means, (0.025, 0.975))) and low < 9.5 < high
    assert mean_interval(values > 30, 10, np.random.default_rng(0)) == (0.0, 0.0)
