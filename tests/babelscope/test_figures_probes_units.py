"""Figures of the unit probes hold the numbers they were given, and are drawn for one row as for many."""

import math

import numpy as np
import pytest

from babelscope.figures.probes_roles import RoleBar, RoleStep, role_bars, role_history
from babelscope.figures.probes_units import (
    Estimate,
    attention_map,
    concept_lines,
    head_harm,
    head_map,
    patch_lines,
    routing_map,
    token_premium,
    training_shares,
)

ROWS = {"fi": Estimate(1.2, 1.1, 1.4), "zh": Estimate(1.5, math.nan, math.nan)}


def trace(figure, name):
    return next(trace for trace in figure.data if trace.name == name)


def test_premium_stands_beside_its_controls():
    figure = token_premium(premium=ROWS, characters={"fi": 1.0, "zh": 0.3}, utf8={"fi": 1.1, "zh": 0.9}, against="en")
    assert list(trace(figure, "tokens").x) == [1.2, 1.5]
    assert list(trace(figure, "tokens").error_x.array) == pytest.approx([0.2, 0.0])
    assert list(trace(figure, "characters").x) == [1.0, 0.3]
    assert "English (en)" in figure.layout.xaxis.title.text


def test_shares_are_in_per_cent_with_the_known_ones_and_the_floor():
    figure = training_shares(inferred={"fi": Estimate(0.25, 0.2, 0.3)}, known={"fi": 0.5}, floor=0.01)
    assert list(trace(figure, "inferred from the merges").x) == [25.0]
    assert list(trace(figure, "known").x) == [50.0]
    assert figure.layout.shapes[0].x0 == 1.0


def test_head_map_is_zero_for_an_even_head_and_one_for_twice_its_share():
    share = np.array([[[0.5, 1.0]], [[0.5, 0.25]]]) / np.array([1.0, 1.25])
    figure = head_map(share=share, languages=["fi", "zh"], chosen=[(0, 0, 1)])
    assert figure.data[0].z[0].tolist() == pytest.approx([0.0, math.log2(1.6)])
    assert (figure.layout.shapes[0].x0, figure.layout.shapes[0].y0) == (0.5, -0.5)


def test_head_harm_draws_every_control_set():
    figure = head_harm(own=ROWS, drawn={"fi": [0.1, 0.2], "zh": [0.3]})
    control = trace(figure, "other heads of the same layers")
    assert list(control.x) == pytest.approx([10.0, 20.0, 30.0]) and list(control.y) == [0, 0, 1]
    assert list(trace(figure, "the language's heads").x) == [120.0, 150.0]


def test_routing_in_brackets_where_it_is_chance():
    figure = routing_map(
        divergence=np.array([[0.5, 0.01]]),
        null=np.array([[0.01, 0.01]]),
        q=np.array([[0.01, 0.6]]),
        languages=["fi"],
        against="en",
    )
    assert figure.data[0].text[0].tolist() == ["0.50", "(0.01)"]


def test_role_bars_carry_their_null():
    bars = [RoleBar(block, role, 0.1, 0.02) for block in ("0–1", "2–3") for role in ("specific", "general")]
    figure = role_bars(bars=bars)
    assert list(figure.data[0].y) == [10.0, 10.0] and list(figure.data[1].y) == [2.0, 2.0]
    assert sum(bool(trace.showlegend) for trace in figure.data if trace.name == "permuted labels") == 1


def test_lines_by_layer():
    cells = attention_map(value=np.array([[0.1, 0.2], [0.3, 0.4]]), languages=["fi", "zh"], unit="nats")
    assert cells.data[0].text[1].tolist() == ["0.30", "0.40"]
    assert cells.layout.coloraxis.colorbar.title.text == "nats"
    assert (cells.layout.coloraxis.cmin, cells.layout.coloraxis.cmax) == (0, 0.4)
    points = [Estimate(0.1, 0.0, 0.2), Estimate(0.2, 0.1, 0.3)]
    concepts = concept_lines(agreement=np.ones((2, 3)), null=np.zeros(2), share=points)
    assert list(concepts.data[0].y) == [10.0, 20.0]
    patched = patch_lines(effect={"last": points}, control={"last": points[:1]})
    assert [trace.name for trace in patched.data] == ["last", "last, unrelated"]
    assert len(patched.data[1].x) == 1


def test_a_ring_at_no_share_is_whole_and_the_largest_known_share_inside():
    figure = training_shares(inferred={"fi": Estimate(0.1, 0.05, 0.2), "sw": Estimate(0.0, 0.0, 0.0)},
                             known={"fi": 0.4, "sw": 0.0}, floor=0.0)  # fmt: skip
    low, high = figure.layout.xaxis.range
    assert low < 0 and high > 40


def test_a_history_of_roles_shows_null_and_range():
    steps = [RoleStep("0", 3, 0.1, 0.02), RoleStep("9", 6, 0.2, 0.03)]
    figure = role_history(
        shares={"specific": steps}, kept=[("0", {"en": 0.1, "fi": 0.3}), ("9", {"en": 1.0, "fi": np.nan})]
    )
    assert list(figure.data[0].y) == [10.0, 20.0] and list(figure.data[1].y) == [2.0, 3.0]
    assert list(figure.data[2].y) == [0.2, 1.0] and figure.data[2].error_y.array[0] == pytest.approx(0.1)
    assert list(figure.layout.xaxis2.ticktext) == ["0", "9"]
