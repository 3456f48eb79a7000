"""Overlap of sets against tables with the same margins."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest
import torch

from babelscope.artifacts import NeuronSet, Origin
from babelscope.controls import overlap
from babelscope.controls.shared_units import shared_units, tables_with_margins
from babelscope.errors import MeasurementError
from babelscope.languages import parse_languages

TAGS = ("en", "de", "fi", "ru", "ar", "hi")


def sets_of(mask):
    languages = parse_languages(TAGS[: len(mask)])
    origin = Origin("tiny", "", "m", "t")
    scores = torch.zeros(mask.shape)
    return NeuronSet.from_mask(
        mask, scores, origin=origin, languages=languages, at="mlp_gate", method="by hand", parameters={}
    )


def popular(seed, languages=6, layers=2, units=300):
    """Sets without any language: each unit has its own rate, the same in every language."""
    rng = np.random.default_rng(seed)
    rate = rng.beta(0.2, 3, size=(1, layers, units))
    return torch.from_numpy(rng.random((languages, layers, units)) < rate)


def test_overlap_of_known_sets():
    mask = torch.zeros(3, 2, 10, dtype=torch.bool)
    mask[0, 0, :3] = mask[0, 1, :2] = mask[1, 0, 1:5] = True
    result = overlap(sets_of(mask))
    assert result.shared.tolist() == [[5, 2, 0], [2, 4, 0], [0, 0, 0]]
    assert float(result.jaccard[0, 1]) == pytest.approx(2 / 7)
    assert result.jaccard[2, 2].isnan() and result.lift[0, 2].isnan() and result.p[0, 2].isnan()
    assert result.p.diagonal().isnan().all()
    # Layer 0 has one unit of en alone, two of fi alone and two of both: the two can only be traded for others.
    assert float(result.expected[0, 1]) == 2.0


def test_every_table_keeps_languages_of_a_unit_and_units_of_a_language_and_layer():
    flat = popular(0).flatten(start_dim=1).numpy()
    chosen = np.flatnonzero(flat.any(axis=0))
    layer, table = chosen // 300, flat[:, chosen]
    drawn = [one.copy() for one in tables_with_margins(table, layer, draws=20, seed=0)]
    assert any(not np.array_equal(one, table) for one in drawn)
    for one in drawn:
        np.testing.assert_array_equal(one.sum(axis=0), table.sum(axis=0))
        for number in (0, 1):
            np.testing.assert_array_equal(one[:, layer == number].sum(axis=1), table[:, layer == number].sum(axis=1))


def test_tables_are_drawn_as_often_as_all_that_there_are():
    table = np.array([[1, 1, 0, 0, 1], [0, 1, 1, 0, 0], [0, 0, 1, 1, 0]], dtype=bool)
    rows = [[row for row in itertools.product((False, True), repeat=5) if sum(row) == n] for n in table.sum(axis=1)]
    fitting = [
        candidate
        for candidate in itertools.product(*rows)
        if np.array_equal(np.sum(candidate, axis=0), table.sum(axis=0))
    ]
    assert len(fitting) > 10
    drawn = tables_with_margins(table, np.zeros(5, dtype=int), draws=6000, seed=1)
    times = Counter(tuple(map(tuple, one.tolist())) for one in drawn)
    assert set(times) == set(fitting)
    expected = 6000 / len(fitting)
    chi_square = sum((times[candidate] - expected) ** 2 / expected for candidate in fitting)
    assert chi_square < len(fitting) + 5 * math.sqrt(2 * len(fitting))


def test_units_that_are_popular_everywhere_are_no_overlap_of_two_languages():
    passed = [bool((overlap(sets_of(popular(seed)), draws=99, seed=seed).p <= 0.05).any()) for seed in range(20)]
    assert sum(passed) <= 4  # 1 of 20 is expected; more than 4 has a chance of 0.003


def test_a_pair_that_shares_more_is_found():
    mask = popular(7)
    mask[4, :, 280:] = mask[5, :, 280:] = True
    result = overlap(sets_of(mask), draws=199, seed=0)
    assert float(result.p[4, 5]) == 1 / 200 == float(result.p.nan_to_num(1.0).min())
    assert (result.p.nan_to_num(1.0) == 1 / 200).sum() == 2
    assert float(result.lift[4, 5]) > 1.3


def test_permuting_units_of_a_layer_changes_no_count():
    mask = popular(3)
    order = torch.randperm(300, generator=torch.Generator().manual_seed(0))
    first, second = overlap(sets_of(mask)), overlap(sets_of(mask[:, :, order]))
    assert torch.equal(first.shared, second.shared)
    assert torch.allclose(first.expected, second.expected, rtol=0.05)
    np.testing.assert_array_equal(shared_units(mask.flatten(1).numpy()), first.shared.numpy())


def test_too_few_draws_are_refused():
    with pytest.raises(MeasurementError, match="draws 18"):
        overlap(sets_of(popular(0)), draws=18)
