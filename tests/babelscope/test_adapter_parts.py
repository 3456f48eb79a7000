"""What exporters share: recipes of one vector per layer, neurons' places in projections, and the tables of peft."""

from dataclasses import replace

import pytest
import torch
from conftest import tiny_model

from babelscope import Operation, Site, SteeringRecipe, layout_of
from babelscope.adapters.constant_additions import constant_additions, constant_layer
from babelscope.adapters.neuron_projections import projections_of
from babelscope.artifacts import Gate, Origin, Schedule
from babelscope.errors import SteeringError
from babelscope.upstream.names import imported
from babelscope.upstream.tuners import register_tuner, tuner_class, tuner_layer_class


def addition(layer, *values, **settings):
    return Operation(Site(layer, "resid_out"), "add", vector=torch.tensor(values), **settings)


def test_vectors_of_one_layer_are_summed_with_their_strengths_and_layers_ascend():
    recipe = SteeringRecipe((
        addition(2, 1.0, 2.0, strength=3.0),
        addition(0, 3.0, 4.0, strength=0.5, unit="relative", mean_norm=20.0),
        addition(2, 10.0, 0.0, strength=-1.0),
    ), Origin("tiny", "", "m", "t"))  # fmt: skip
    vectors = constant_additions(recipe, "a bias")
    assert {layer: vector.tolist() for layer, vector in vectors.items()} == {0: [6.0, 8.0], 2: [-7.0, 6.0]}
    assert list(vectors) == [0, 2] and all(vector.dtype == torch.float64 for vector in vectors.values())


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"site": Site(1, "resid_mid")}, "only adds to whole resid_out"),
        ({"gate": Gate(phase="prompt")}, "has a gate; a bias acts on every token"),
        ({"gate": Gate(skip_special=True)}, "has a gate"),
        ({"schedule": Schedule("ramp", start=1.0, end=0.0, steps=4)}, "has a schedule; a bias has one strength"),
    ],
)
def test_what_does_not_act_alike_on_every_token_is_no_constant_addition(change, reason):
    operation = addition(1, 1.0, 2.0)
    assert constant_layer(operation, "a bias") == 1
    with pytest.raises(SteeringError, match=reason):
        constant_layer(replace(operation, **change), "a bias")


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        ("llama", [("gate_proj", ("gate",), 48, [1, 7]), ("up_proj", ("up",), 48, [1, 7])]),
        ("phi3", [("gate_up_proj", ("gate", "up"), 96, [1, 7, 49, 55])]),
        ("opt", [("fc1", ("up",), 48, [1, 7])]),
    ],
)
def test_neurons_are_outputs_of_gate_and_up_and_inputs_of_down(family, expected):
    model = tiny_model(family)
    layout = layout_of(model)
    assert layout.d_neuron == 48
    *upper, down = projections_of(layout, 1, torch.tensor([1, 7]))
    assert [(part.module.split(".")[-1], part.roles, part.width, part.places.tolist()) for part in upper] == expected
    assert down.roles == ("down",) and down.at_inputs and not any(part.at_inputs for part in upper)
    for part in (*upper, down):
        out_features, in_features = model.get_submodule(part.module).weight.shape
        assert part.layer == 1 and part.width == (in_features if part.at_inputs else out_features)


def test_a_tuner_is_entered_into_the_three_tables_that_peft_reads(monkeypatch):
    tables = [imported("peft.mapping", key) for key in ("peft.configs", "peft.tuners", "peft.prefixes")]
    for table in tables:
        monkeypatch.delitem(table, "TEST", raising=False)
    before = [dict(table) for table in tables]
    kind = type("Kind", (), {})
    register_tuner("TEST", kind, tuner_class(), "test_")
    try:
        assert [table["TEST"] for table in tables] == [kind, tuner_class(), "test_"]
    finally:
        for table in tables:
            del table["TEST"]
    assert [dict(table) for table in tables] == before


def test_tuners_and_wrapped_modules_have_the_classes_that_peft_looks_for():
    from peft.tuners.lora import Linear, LoraModel

    assert issubclass(LoraModel, tuner_class()) and issubclass(Linear, tuner_layer_class())
    assert not issubclass(Linear, tuner_class())
