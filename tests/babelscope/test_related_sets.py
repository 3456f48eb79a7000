"""Neurons by cumulative activity, and what related languages share of them, against numpy and planted families."""

import math

import numpy as np
import pytest
import torch

from babelscope.artifacts import NeuronSet, Origin
from babelscope.errors import LanguageError, SelectionError
from babelscope.figures.proximity_lines import proximity_lines
from babelscope.languages import parse_languages
from babelscope.neurons import UnitCounts
from babelscope.neurons.rules.specialization import Specialization
from babelscope.probes.units.related_sets import set_overlap, set_proximity

TAGS = parse_languages(("de", "nl", "es", "it", "ru", "uk", "fi", "et"))


def by_hand(rate, share):
    """The fewest neurons of a layer that carry the share: one added after the other."""
    order, total, chosen = np.argsort(-rate, kind="stable"), 0.0, set()
    for neuron in order:
        if total >= share * rate.sum():
            break
        total += rate[neuron]
        chosen.add(int(neuron))
    return chosen


@pytest.mark.parametrize("share", [0.3, 0.95, 1.0])
def test_the_fewest_neurons_that_carry_the_share(share):
    generator = np.random.default_rng(0)
    active, tokens = torch.from_numpy(generator.integers(0, 900, (3, 40, 2))), torch.tensor([1000, 1300])
    mask = Specialization(share=share, min_count=0).select(UnitCounts(active, tokens)).mask
    for k in range(2):
        for layer in range(3):
            rate = active[layer, :, k].numpy() / int(tokens[k])
            assert set(mask[k, layer].nonzero().flatten().tolist()) == by_hand(rate, share) - set(
                np.flatnonzero(rate == 0)
            )


def test_dead_layers_and_rare_neurons_are_left_out_and_bad_shares_refused():
    active = torch.tensor([[[0, 0], [0, 0]], [[90, 10], [10, 90]]])
    choice = Specialization(share=0.8, min_count=0).select(UnitCounts(active, torch.tensor([100, 100])))
    assert choice.mask.tolist() == [[[False, False], [True, False]], [[False, False], [False, True]]]
    rare = Specialization(share=0.8, min_count=101).select(UnitCounts(active, torch.tensor([100, 100])))
    assert not rare.mask.any()
    with pytest.raises(SelectionError, match="share 1.5"):
        Specialization(share=1.5)


def sets_of(mask):
    return NeuronSet.from_mask(
        mask,
        torch.zeros(mask.shape),
        origin=Origin("", "", "", ""),
        languages=TAGS,
        at="mlp_gate",
        method="specialization",
        parameters={},
    )


def test_overlap_is_intersection_over_union():
    generator = torch.Generator().manual_seed(0)
    mask = torch.rand(8, 2, 30, generator=generator) < 0.4
    mask[:2, 1] = False
    overlap = set_overlap(mask)
    for layer in range(2):
        for a in range(8):
            for b in range(8):
                one, two = (set(mask[k, layer].nonzero().flatten().tolist()) for k in (a, b))
                expected = len(one & two) / len(one | two) if one | two else math.nan
                assert overlap[layer, a, b].item() == pytest.approx(expected, nan_ok=True)


def test_planted_families_share_their_neurons_and_random_sets_do_not():
    """In layer 0 branches and a family have neurons of their own; layer 1 is random; in layer 2 a language has none."""
    generator = torch.Generator().manual_seed(1)
    mask = torch.rand(8, 3, 200, generator=generator) < 0.2
    for branch in range(4):
        mask[2 * branch : 2 * branch + 2, 0, 40 * branch : 40 * branch + 40] = True
    mask[:6, 0, 160:] = True  # the six Indo-European languages
    mask[:2, 2] = False
    found = set_proximity(sets_of(mask), draws=499)
    assert sorted(found.tests) == [0, 1]
    assert found.tests[0].correlation > 0.6 and found.tests[0].p <= 0.01 and found.tests[0].gap > 0.1
    assert found.tests[1].p > 0.05
    rows = found.rows()
    assert [row.site for row in rows] == ["0.mlp_gate", "0.mlp_gate", "1.mlp_gate", "1.mlp_gate", "2.mlp_gate"]
    assert rows[1].p == found.tests[0].p and rows[0].estimate == pytest.approx(
        float(set_overlap(mask)[0].numpy()[np.triu_indices(8, 1)].mean())
    )
    with pytest.raises(LanguageError, match="at least 4 languages"):
        set_proximity(NeuronSet.from_mask(mask[:3], torch.zeros(3, 3, 200), origin=Origin("", "", "", ""),
                                          languages=TAGS[:3], at="mlp_gate", method="x", parameters={}))  # fmt: skip


def test_the_figure_has_the_mean_and_fills_what_is_below_chance():
    overlap = np.ones((2, 2, 2))
    overlap[:, 0, 1] = (0.2, 0.6)
    figure = proximity_lines(overlap=overlap, correlation={0: 0.5, 1: 0.1}, p={0: 0.01, 1: 0.4})
    assert list(figure.data[0].y) == [0.2, 0.6] and list(figure.data[1].y) == [0.5, 0.1]
    assert list(figure.data[1].marker.symbol) == ["circle", "circle-open"]
