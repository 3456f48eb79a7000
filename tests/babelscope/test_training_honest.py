"""Work that was not done is never reported as done: no gradients, nothing learned, changes rounded away."""

import logging

import pytest
import torch
from conftest import tiny_model, tiny_tokenizer
from training_cases import OTHERS, TEXT, some_neurons

import babelscope as bs
from babelscope import Operation, Site, steer
from babelscope.adaptation import LotteryTicket, Material, adapt
from babelscope.errors import MeasurementError, PrerequisiteError
from babelscope.models import layout_of

SETTINGS = {"steps": 2, "tokens_per_step": 64, "max_length": 32, "learning_rate": 1e-3}


def train(model, **more):
    return bs.train_subnetwork(model, tiny_tokenizer(), some_neurons(model), TEXT, **{**SETTINGS, **more})


def switched_off(how, model):
    """A caller that has switched gradients off."""
    if how == "frozen":
        model.requires_grad_(False)
        return torch.enable_grad()
    return torch.no_grad() if how == "no_grad" else torch.inference_mode()


@pytest.mark.parametrize("form", ["fused", "split"])
@pytest.mark.parametrize("how", ["no_grad", "inference_mode", "frozen"])
def test_training_trains_where_the_caller_switched_gradients_off(how, form):
    expected = train(tiny_model("llama"), form=form)
    model = tiny_model("llama")
    with switched_off(how, model):
        found = train(model, form=form)
    assert all(torch.equal(found.rows[role], rows) and bool(rows.any()) for role, rows in expected.rows.items())


@pytest.mark.parametrize("method", ["subnetwork", "full", "ffn", "lora", "lt-sft"])
def test_every_method_adapts_where_the_caller_switched_gradients_off(method):
    def adapted(model, context):
        material = Material.prepare(
            model,
            tiny_tokenizer(),
            language="eu",
            documents=TEXT,
            dev=TEXT[:6],
            test={"eu": TEXT[:4], "en": OTHERS["en"][:4]},
            max_length=32,
        )
        settings = {"steps": 2, "learning_rate": 1e-3, "tokens_per_step": 64, "evaluate_every": 2}
        settings |= {"ticket": LotteryTicket(share=0.05)} if method == "lt-sft" else {}
        with context:
            return adapt(material, method, neurons=some_neurons(model), **settings)

    expected = adapted(tiny_model("llama"), torch.enable_grad())
    model = tiny_model("llama").requires_grad_(False)
    found = adapted(model, torch.inference_mode())
    assert [point.loss for point in found.history] == [point.loss for point in expected.history]
    assert len({point.loss for point in found.history}) == 2 and found.after == expected.after


def test_weights_made_under_inference_mode_are_refused_in_one_line():
    with torch.inference_mode():
        model = tiny_model("llama")
    neurons = some_neurons(tiny_model("llama"))
    with pytest.raises(PrerequisiteError, match="made under torch.inference_mode.*open the model outside"):
        bs.train_subnetwork(model, tiny_tokenizer(), neurons, TEXT, **SETTINGS)


@pytest.mark.parametrize("form", ["fused", "split"])
def test_an_attention_that_detaches_is_refused_with_its_name(form):
    model = tiny_model("llama")
    neurons = some_neurons(model)
    plain = model.model.layers[2].self_attn.forward

    def forward(*args, **kwargs):
        out, weights = plain(*args, **kwargs)
        return out.detach(), weights

    model.model.layers[2].self_attn.forward = forward
    with pytest.raises(PrerequisiteError, match=r"gradients end at model.layers.2.self_attn \(LlamaAttention\)"):
        bs.train_subnetwork(model, tiny_tokenizer(), neurons, TEXT, form=form, **SETTINGS)


def test_an_mlp_whose_forward_was_replaced_is_refused():
    model = tiny_model("llama")
    plain = model.model.layers[2].mlp.forward
    model.model.layers[2].mlp.forward = lambda x: 2 * plain(x)
    with pytest.raises(PrerequisiteError, match="mlp of layer 2 is a LlamaMLP that others wrote, or whose forward"):
        train(model)


def test_hooks_inside_a_trained_mlp_are_refused():
    model = tiny_model("llama")
    with (
        layout_of(model).watch(Site(2, "mlp_inner"), lambda *_: None),
        pytest.raises(PrerequisiteError, match="hooks stand on mlp.down_proj of layer 2 .*close the steering"),
    ):
        train(model)


def test_a_steered_model_is_not_trained():
    model = tiny_model("llama")
    with (
        steer(model, Operation(Site(2, "resid_out"), "add", torch.ones(32))),
        pytest.raises(MeasurementError, match="this model is steered now"),
    ):
        train(model)


def test_a_learning_rate_that_moves_nothing_is_no_result():
    with pytest.raises(MeasurementError, match="2 steps changed no weight of eu's neurons.*raise the learning rate"):
        train(tiny_model("llama"), learning_rate=1e-30)


def test_neurons_that_never_fire_have_no_gradient_and_no_result():
    model = tiny_model("opt")
    for layer in model.model.decoder.layers:
        torch.nn.init.constant_(layer.fc1.bias, -1e4)
    with pytest.raises(MeasurementError, match="none of 2 steps had a gradient"):
        train(model)


def test_the_untouched_model_is_a_candidate_and_a_worse_delta_is_said(caplog):
    model = tiny_model("llama")
    with caplog.at_level(logging.WARNING):
        delta = train(model, learning_rate=300.0, validation=["QZQZ 0123 XKXK"] * 4, evaluate_every=1)
    result = delta.parameters["result"]
    assert result["best_step"] == 0 and all(score >= result["untouched"] for _, score in result["bits_per_byte"])
    assert not any(bool(rows.any()) for rows in delta.rows.values())
    assert caplog.text.count("no step was better on validation text than the untouched model") == 1


def test_a_better_delta_is_not_said_to_be_worse(caplog):
    delta = train(tiny_model("llama"), steps=4, validation=TEXT[:6], evaluate_every=1)
    result = delta.parameters["result"]
    assert result["best_step"] > 0 and min(score for _, score in result["bits_per_byte"]) < result["untouched"]
    assert "no step was better" not in caplog.text


def test_an_adaptation_that_helps_nowhere_has_no_gain():
    model = tiny_model("llama")
    material = Material.prepare(
        model,
        tiny_tokenizer(),
        language="eu",
        documents=TEXT,
        dev=["QZQZ 0123 XKXK"] * 4,
        test={"eu": TEXT[:4]},
        max_length=32,
    )
    settings = {"steps": 2, "tokens_per_step": 64, "evaluate_every": 1, "neurons": some_neurons(model)}
    found = adapt(material, "subnetwork", learning_rate=300.0, **settings)
    assert found.gain("eu") == 0 and found.dev < min(point.bits_per_byte for point in found.history)
    assert found.harm("eu") != found.harm("eu")
