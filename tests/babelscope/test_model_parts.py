"""Parts of a model by its neurons' classes, against brute force and planted parts; what each penalty selects."""

import functools
import itertools
import math

import numpy as np
import pytest
import torch
from conftest import tiny_model, tiny_tokenizer

from babelscope import load_corpus, observe, select_entropy_lambda
from babelscope.errors import SelectionError
from babelscope.figures.probes_roles import role_profile
from babelscope.neurons.penalties import GRID, penalty_sweep
from babelscope.probes.units.model_parts import class_profile, cut_profile, model_parts
from babelscope.probes.units.roles import role_parts, role_shares

PLANTED = ((0, 1, 2), (3, 4, 5, 6, 7), (8, 9), (10, 11))


def planted_profile(noise=0.01, seed=0):
    """Twelve layers in four parts, whose classes have shares of their own."""
    shares = np.array([[0.10, 0.05, 0.01], [0.01, 0.05, 0.20], [0.08, 0.15, 0.05], [0.20, 0.02, 0.01]])
    rows = np.concatenate([np.tile(shares[part], (len(layers), 1)) for part, layers in enumerate(PLANTED)])
    return torch.from_numpy(rows + noise * np.random.default_rng(seed).normal(size=rows.shape))


def by_brute_force(profile, parts):
    """Every cut of the scaled profile; the one with the least sum of squares about its parts' means."""
    values = profile.numpy()
    scaled = (values - values.mean(0)) / values.std(0)
    best = (math.inf, ())
    for inner in itertools.combinations(range(1, len(values)), parts - 1):
        pieces = np.split(scaled, inner)
        best = min(best, (sum(((piece - piece.mean(0)) ** 2).sum() for piece in pieces), inner))
    return best[1], 1 - best[0] / (scaled**2).sum()


@pytest.mark.parametrize("parts", [1, 2, 4, 8])
def test_the_cut_is_the_best_of_all(parts):
    for seed in range(5):
        profile = torch.rand(8, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        layers, explained = cut_profile(profile, parts)
        inner, share = by_brute_force(profile, parts)
        assert tuple(part[0] for part in layers[1:]) == inner and explained == pytest.approx(share, abs=1e-12)
        assert [layer for part in layers for layer in part] == list(range(8))


def test_planted_parts_are_found_and_beat_layers_in_random_order():
    found = model_parts(planted_profile(), 4, draws=99)
    assert found.layers == PLANTED and found.starts == (3, 8, 10)
    whole, *bounds = found.rows()
    assert whole.p == 0.01 and whole.estimate > 0.9 > found.null.max()
    assert [row.estimate for row in bounds] == [3, 8, 10] and all(math.isnan(row.low) for row in bounds)


def test_profiles_without_parts_are_no_better_than_in_random_order():
    p = [model_parts(planted_profile(noise=10, seed=seed), 4, draws=39).rows()[0].p for seed in range(8)]
    assert 0.2 < np.mean(p) < 0.8


def test_intervals_of_boundaries_are_quantiles_of_resamples():
    samples = torch.stack([planted_profile(), planted_profile().roll(1, dims=0)])
    found = model_parts(planted_profile(), 4, resampled=samples, draws=1)
    starts = [[part[0] for part in cut_profile(sample, 4)[0][1:]] for sample in samples]
    assert list(found.low) == np.min(starts, axis=0).tolist() and list(found.high) == np.max(starts, axis=0).tolist()
    assert found.rows()[1].low == found.low[0] and found.resamples == 2


def test_layers_that_are_all_alike_have_no_parts():
    layers, explained = cut_profile(torch.ones(6, 3, dtype=torch.float64), 3)
    assert len(layers) == 3 and math.isnan(explained)
    with pytest.raises(SelectionError, match="7 blocks for 6 layers"):
        cut_profile(torch.ones(6, 3, dtype=torch.float64), 7)


@pytest.fixture(scope="module")
def observation():
    texts = load_corpus("reference", ["en", "fi", "ru"], split="valid").head(60)
    return observe(tiny_model("llama"), tiny_tokenizer(), texts, tokens_per_language=None)


RULE = functools.partial(select_entropy_lambda, top_rate=0.2, bar_rate=0.5, min_count=0)


def test_blocks_are_cut_where_the_profiles_change(observation):
    parts = role_parts(observation, RULE, parts=2, draws=3, resamples=5)
    assert torch.equal(parts.profile, class_profile(RULE(observation).above))
    assert parts.layers == cut_profile(parts.profile, 2)[0] and parts.resamples == 5
    assert all(low <= high for low, high in zip(parts.low, parts.high, strict=True))
    shares = role_shares(observation, RULE, blocks=2, draws=1)
    assert tuple(share.layers for share in shares[::3]) == parts.layers
    given = role_shares(observation, RULE, blocks=[[0, 2], [1]], draws=1)
    assert [share.layers for share in given[::3]] == [(0, 2), (1,)]
    assert given[2].above == int((RULE(observation).above[[0, 2]] == 3).sum())
    with pytest.raises(SelectionError, match="layers from 0 to 2"):
        role_shares(observation, RULE, blocks=[[0, 3]])


def test_a_penalty_selects_as_many_of_each_class_as_the_rule(observation):
    steps = penalty_sweep(observation, top_rate=0.2, bar_rate=0.5, min_count=0)
    assert [step.penalty for step in steps] == list(GRID)
    for step in steps[::5]:
        classes = RULE(observation, penalty=step.penalty).classes
        assert (step.specific, step.related, step.general) == tuple(int((classes == n).sum()) for n in (1, 2, 3))
        assert sum(step[1:]) == round(0.2 * classes.numel()) == step.row().n
    assert steps[-1].general >= steps[0].general and steps[0].nowhere >= steps[-1].nowhere


def test_the_profile_shows_every_class_and_where_parts_begin():
    figure = role_profile(profile=planted_profile().numpy(), roles=("specific", "related", "general"), starts=(3, 8))
    assert [trace.name for trace in figure.data] == ["specific", "related", "general"]
    assert list(figure.data[2].y) == (100 * planted_profile().numpy()[:, 2]).tolist()
    assert [shape.x0 for shape in figure.layout.shapes] == [2.5, 7.5]
