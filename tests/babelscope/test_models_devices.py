"""Models spread over devices, offloaded, or stored in fewer bits.

There is one device here: what a second one would meet is followed with tensors that have no data.
"""

import copy

import pytest
import torch
from accelerate.hooks import AlignDevicesHook, add_hook_to_module
from conftest import tiny_model, tiny_tokenizer
from family_cases import IDS, checkpoint, opened
from steering_cases import push
from torch import nn
from transformers import AutoModelForCausalLM

from babelscope import Site, layout_of, observe, open_model, origin_of, read_site, steer
from babelscope.ablation.switch_off import switched_off
from babelscope.errors import PrerequisiteError
from babelscope.models import opening, quantised_parameters

TEXTS = {"en": ["the cat sat", "a dog barks here"], "fi": ["kissa istui", "koira haukkuu"]}
READ = ["embed", "resid_in", "attn_heads", "resid_mid", "mlp_gate", "mlp_inner", "resid_out", "logits"]
PARTS = {
    "llama": ("model.layers", ["model.embed_tokens", "model.rotary_emb", "model.norm", "lm_head"]),
    "mixtral": ("model.layers", ["model.embed_tokens", "model.rotary_emb", "model.norm", "lm_head"]),
    "gpt2": ("transformer.h", ["transformer.wte", "transformer.wpe", "transformer.ln_f", "lm_head"]),
}


def spread(family, folder, ends="cpu"):
    """Layer 0 on the CPU, the other layers on disk."""
    layers, others = PARTS[family]
    places = {f"{layers}.0": "cpu", f"{layers}.1": "disk", f"{layers}.2": "disk", **dict.fromkeys(others, ends)}
    options = {"device_map": places, "offload_folder": folder, "dtype": torch.float32}
    return AutoModelForCausalLM.from_pretrained(checkpoint(family), **options).eval()


def same(found, expected):
    for at in READ:
        assert torch.equal(found[at].active, expected[at].active), at
        assert torch.equal(found[at].sum, expected[at].sum), at
    assert torch.equal(found["mlp_inner"].weight_norm, expected["mlp_inner"].weight_norm)


@pytest.mark.parametrize("family", PARTS)
def test_offloaded_layers_give_the_same_observation(family, tmp_path, tokenizer):
    expected = observe(opened(family).model, tokenizer, TEXTS, sites=READ)
    model = spread(family, tmp_path)
    assert next(layout_of(model).layer(1).parameters()).is_meta
    same(observe(model, tokenizer, TEXTS, sites=READ), expected)


def test_a_device_map_of_one_device_gives_the_same_observation(tokenizer):
    model = AutoModelForCausalLM.from_pretrained(checkpoint("llama"), device_map={"": "cpu"}, dtype=torch.float32)
    expected = observe(opened("llama").model, tokenizer, TEXTS, sites=READ)
    same(observe(model.eval(), tokenizer, TEXTS, sites=READ), expected)


def test_device_map_opens_like_any_other(tokenizer):
    model, _ = open_model(str(checkpoint("llama")), device="map", dtype="float32")
    with torch.no_grad():
        assert torch.equal(model(input_ids=IDS).logits, opened("llama").model(input_ids=IDS).logits)


@torch.no_grad()
@pytest.mark.parametrize("family", PARTS)
def test_offloaded_layers_are_steered_and_switched_off_alike(family, tmp_path):
    model, plain = spread(family, tmp_path), opened(family).model
    mask = torch.zeros(3, layout_of(plain).width("mlp_inner"), dtype=torch.bool)
    mask[2, ::3] = True
    for change in (
        lambda one: steer(one, push(site=Site(1, "resid_mid"))),
        lambda one: switched_off(layout_of(one), mask, at="mlp_inner"),
    ):
        with change(model):
            found = model(input_ids=IDS).logits
        with change(plain):
            assert torch.equal(found, plain(input_ids=IDS).logits)


def test_rows_of_offloaded_weights_are_refused_in_one_line(tmp_path):
    layout = layout_of(spread("llama", tmp_path))
    assert layout.neuron_rows(0)["up"].shape == (1, 48, 32)
    with pytest.raises(PrerequisiteError, match="layer 1 are offloaded"):
        layout.neuron_rows(1)
    torch.testing.assert_close(layout.down_norm(1), opened("llama").down_norm(1))


@torch.no_grad()
def test_values_come_on_the_device_of_their_layer():
    model = copy.deepcopy(opened("llama").model)
    layout = layout_of(model)
    for module in (layout.layer(2), model.model.norm, model.lm_head):
        add_hook_to_module(module, AlignDevicesHook("meta", place_submodules=True))
    for at in ("resid_in", "attn_heads", "resid_mid", "mlp_gate", "mlp_inner", "mlp_out", "resid_out"):
        for layer, device in ((1, "cpu"), (2, "meta")):
            assert read_site(model, IDS, Site(layer, at)).device.type == device, at
            assert layout.device_of(Site(layer, at)).type == device
    assert layout.device_of(Site(None, "embed")).type == "cpu"
    assert (
        layout.device_of(Site(None, "logits")).type == read_site(model, IDS, Site(None, "logits")).device.type == "meta"
    )
    with steer(model, [push(site=Site(2, "resid_in")), push(site=Site(1, "resid_out"))]):
        assert model(input_ids=IDS).logits.is_meta


# Fewer bits


class Int8Linear(nn.Module):
    """A projection kept in whole numbers, as quantisation libraries keep theirs."""

    def __init__(self, plain):
        super().__init__()
        self.in_features, self.out_features = plain.in_features, plain.out_features
        self.scale = nn.Parameter(plain.weight.detach().abs().amax(dim=1) / 127)
        whole = (plain.weight.detach() / self.scale[:, None]).round().to(torch.int8)
        self.weight = nn.Parameter(whole, requires_grad=False)
        self.bias = plain.bias

    def forward(self, x):
        return nn.functional.linear(x, self.weight.to(x.dtype) * self.scale[:, None].to(x.dtype), self.bias)


def quantised(form="llama with biases"):
    model = copy.deepcopy(opened(form).model)
    for layer in model.model.layers:
        for parent, name in ((layer.self_attn, "o_proj"), (layer.mlp, "up_proj"), (layer.mlp, "down_proj")):
            setattr(parent, name, Int8Linear(getattr(parent, name)))
    return model


@torch.no_grad()
def test_a_quantised_model_is_observed_and_steered(tokenizer):
    model, layout = quantised(), layout_of(quantised())
    assert (layout.d_neuron, layout.width("attn_heads")) == (48, 32)
    found = observe(model, tokenizer, TEXTS, sites=READ)
    expected = (layout.layer(1).mlp.down_proj.weight.double() * layout.layer(1).mlp.down_proj.scale[:, None]).norm(
        dim=0
    )
    torch.testing.assert_close(found["mlp_inner"].weight_norm[1], expected, rtol=1e-5, atol=1e-6)
    before = model(input_ids=IDS).logits
    with steer(model, push()):
        assert not torch.allclose(model(input_ids=IDS).logits, before, atol=1e-2)
    assert torch.equal(model(input_ids=IDS).logits, before)


def test_rows_of_quantised_weights_are_refused_in_one_line():
    model = quantised()
    with pytest.raises(PrerequisiteError, match=r"Int8Linear with torch\.int8 weights"):
        layout_of(model).neuron_rows(1)
    names = quantised_parameters(model)
    assert len(names) == 9
    assert "model.layers.0.mlp.down_proj.weight" in names


@pytest.mark.parametrize("family", ["llama", "gpt2", "mixtral"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_plain_models_have_no_quantised_parameters(family, dtype):
    assert quantised_parameters(tiny_model(family, dtype=dtype)) == ()


@pytest.mark.parametrize("dtype", ["int8", "int4"])
def test_fewer_bits_without_their_library_are_refused_in_one_line(monkeypatch, dtype):
    monkeypatch.setattr(opening, "find_spec", lambda name: None)
    with pytest.raises(PrerequisiteError, match="pip install bitsandbytes"):
        open_model(str(checkpoint("llama")), dtype=dtype)


def test_a_dtype_that_is_none_is_refused():
    with pytest.raises(PrerequisiteError, match="'int3' is unknown"):
        open_model(str(checkpoint("llama")), dtype="int3")


def test_storing_in_fewer_bits_leaves_the_origin():
    model = tiny_model("llama")
    before = origin_of(model, tiny_tokenizer())
    model.config.quantization_config = {"load_in_8bit": True}
    assert origin_of(model, tiny_tokenizer()) == before
