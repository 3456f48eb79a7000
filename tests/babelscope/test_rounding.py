"""What a cast to fewer bits takes of a change is said: values that do not move, and length that is lost."""

import logging

import pytest
import torch
from conftest import tiny_model
from training_cases import some_neurons

from babelscope import layout_of
from babelscope.subnetworks import Bank, Delta


def changed(model, size, seed=0):
    """A delta of random changes of this size."""
    neurons = some_neurons(model)
    generator = torch.Generator().manual_seed(seed)
    shapes = {role: rows.shape for role, rows in Bank.of(layout_of(model), neurons).changes().items()}
    return Delta.of(neurons, {role: torch.randn(shape, generator=generator) * size for role, shape in shapes.items()})


def by_hand(model, delta, dtype):
    """Each value alone, in Python."""
    layout, values, unmoved, lost, square = layout_of(model), 0, 0, 0.0, 0.0
    for layer in delta.layers:
        indices, rows = delta.layer_of(layer)
        for role, change in rows.items():
            base = layout.neuron_rows(layer)[role][0][indices.long()].to(dtype)
            for b, d in zip(base.flatten().tolist(), change.flatten().tolist(), strict=True):
                moved = torch.tensor(b + d, dtype=torch.float64).to(dtype).double().item() - b
                values += 1
                unmoved += moved == 0
                lost += (moved - d) ** 2
                square += d**2
    return values, unmoved / values, (lost / square) ** 0.5


@pytest.mark.parametrize("size", [1e-5, 1e-3, 1e-1])
def test_shares_are_those_worked_out_one_value_at_a_time(size):
    model = tiny_model("llama", dtype=torch.bfloat16)
    delta = changed(model, size)
    found, (values, unmoved, lost) = delta.cast_loss(model), by_hand(model, delta, torch.bfloat16)
    assert (found.dtype, found.values) == ("bfloat16", values)
    assert found.unmoved == pytest.approx(unmoved) and found.lost == pytest.approx(lost, rel=1e-6)
    with delta.applied(model):
        assert delta.cast_loss(model) == found


def test_float32_weights_lose_next_to_nothing_and_say_what_bfloat16_would_take():
    model = tiny_model("llama")
    delta = changed(model, 1e-4)
    assert delta.cast_loss(model).exact
    would = delta.cast_loss(model, dtype=torch.bfloat16)
    assert would.unmoved > 0.3 and would.lost > 0.3
    left = delta.rounded(model, torch.bfloat16)
    gap = sum(float((left.rows[role] - rows).double().square().sum()) for role, rows in delta.rows.items())
    whole = sum(float(rows.double().square().sum()) for rows in delta.rows.values())
    assert (gap / whole) ** 0.5 == pytest.approx(would.lost, rel=1e-4)


def test_applying_to_weights_of_fewer_bits_says_what_is_lost(caplog):
    model = tiny_model("llama", dtype=torch.bfloat16)
    with caplog.at_level(logging.WARNING):
        changed(model, 1e-5).apply(model)
    assert "changed values do not move" in caplog.text and "open the model in float32" in caplog.text


def test_a_change_that_bfloat16_holds_is_not_warned_of(caplog):
    model = tiny_model("llama", dtype=torch.bfloat16)
    neurons, layout = some_neurons(model), layout_of(model)
    rows = {part.role: [] for part in Bank.of(layout, neurons).parts}
    for layer in neurons.layer_counts[0].nonzero()[:, 0].tolist():
        for role, weights in layout.neuron_rows(layer).items():
            rows[role].append(weights[0][neurons.layer_of(0, layer).long()].float())
    delta = Delta.of(neurons, {role: torch.cat(parts).detach() for role, parts in rows.items()})
    with caplog.at_level(logging.WARNING):
        delta.apply(model)
    assert delta.cast_loss(model).lost == 0 and not caplog.text


def test_a_change_of_nothing_loses_nothing():
    model = tiny_model("llama", dtype=torch.bfloat16)
    found = changed(model, 0.0).cast_loss(model)
    assert (found.values, found.unmoved, found.lost) == (0, 0.0, 0.0)
