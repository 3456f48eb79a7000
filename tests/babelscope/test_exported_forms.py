"""Steering as biases of a plain checkpoint, and deltas as a GGUF LoRA: the same logits without babelscope."""

import copy

import numpy as np
import pytest
import torch
from conftest import CONFIGS, tiny_model, tiny_tokenizer
from delta_cases import bits, random_delta, same_bits
from gguf import GGUFReader
from transformers import AutoModelForCausalLM

from babelscope import Direction, Gate, Site, SteeringRecipe, layout_of, open_model, origin_of, steer
from babelscope.adapters.folded_biases import with_folded_biases
from babelscope.adapters.gguf_lora import export_gguf_lora, gguf_architecture
from babelscope.adapters.merged import export_merged
from babelscope.cli.exporting import run_export
from babelscope.errors import ArtifactError, PrerequisiteError, SteeringError, UsageError
from babelscope.subnetworks import ElementDelta

FOLD = ("llama", "mistral", "qwen2", "gpt2", "gpt_neox", "bloom", "opt")
NO_FOLD = {
    "qwen3": "no setting gives it one",
    "phi3": "no setting gives it one",
    "gemma2": "before it is added",
    "gemma3_text": "before it is added",
    "mixtral": "experts",
}


def direction_of(model, layer=1, size=3.0):
    vector = size * torch.randn(model.config.hidden_size, generator=torch.Generator().manual_seed(layer))
    return Direction(vector, Site(layer, "resid_out"), "fi", ("en",), 10.0, origin_of(model, None))


def two_layers(model):
    return direction_of(model).recipe(0.4, "relative") + direction_of(model, 0).recipe(1.0, "raw")


@torch.no_grad()
@pytest.mark.parametrize("family", FOLD)
def test_a_folded_checkpoint_opens_in_plain_transformers_and_is_steered(family, tmp_path, ids):
    model = tiny_model(family)
    before, recipe, plain = bits(model), two_layers(model), model(ids).logits
    with steer(model, recipe):
        expected = model(ids).logits
    path = export_merged(model, tiny_tokenizer(), tmp_path / "merged", recipe=recipe)
    assert same_bits(before, model) and torch.equal(model(ids).logits, plain)
    found = AutoModelForCausalLM.from_pretrained(path)(ids).logits
    size = float(expected.abs().max())
    torch.testing.assert_close(found / size, expected / size, rtol=0, atol=1e-5)
    assert (expected - plain).abs().max() / size > 1e-2


@torch.no_grad()
def test_a_bias_that_was_there_is_summed_in_float64_and_rounded_once():
    model = tiny_model("gpt2").to(torch.bfloat16)
    bias = model.transformer.h[1].mlp.c_proj.bias
    bias.normal_(generator=torch.Generator().manual_seed(0))
    recipe = two_layers(model)
    first = next(iter(recipe))
    added = first.vector.double() * first.scale * first.strength
    folded = with_folded_biases(model, recipe).transformer.h[1].mlp.c_proj.bias
    assert first.site.layer == 1 and torch.equal(folded, (bias.double() + added).to(torch.bfloat16))
    assert not torch.equal(folded, bias + added.to(torch.bfloat16))


@pytest.mark.parametrize("family", NO_FOLD)
def test_what_does_not_fold_is_named_in_one_line(family, tmp_path):
    model = tiny_model(family)
    with pytest.raises(PrerequisiteError, match=NO_FOLD[family]) as caught:
        export_merged(model, tiny_tokenizer(), tmp_path / "merged", recipe=two_layers(model))
    assert "\n" not in str(caught.value) and not (tmp_path / "merged").exists()


def test_a_sliding_window_is_not_taken_for_llama():
    config = copy.deepcopy(CONFIGS["mistral"])
    config.sliding_window = 8
    model = AutoModelForCausalLM.from_config(config).eval()
    with pytest.raises(PrerequisiteError, match="no setting gives it one"):
        with_folded_biases(model, two_layers(model))


def test_only_constant_additions_fold():
    model = tiny_model("llama")
    gated = direction_of(model).recipe(1.0, "raw", gate=Gate(phase="generated"))
    with pytest.raises(SteeringError, match="has a gate; a bias acts on every token"):
        with_folded_biases(model, gated)
    taken = SteeringRecipe((direction_of(model).project_out(),), origin_of(model, None))
    with pytest.raises(SteeringError, match="a bias only adds"):
        with_folded_biases(model, taken)


def test_a_fold_that_computes_something_else_is_refused(monkeypatch):
    model = tiny_model("llama")
    monkeypatch.setattr(type(layout_of(model)), "factor", lambda self: 2.0)
    with pytest.raises(PrerequisiteError, match="apart, as a share of the largest"):
        with_folded_biases(model, two_layers(model))


@torch.no_grad()
@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "gemma3_text", "phi3", "gpt2"])
def test_a_gguf_lora_is_the_delta(family, tmp_path):
    model = tiny_model(family)
    delta = random_delta(model)
    path = export_gguf_lora(delta, model, tmp_path / "lora.gguf", scale=0.5)
    reader = GGUFReader(path)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    assert (fields["general.type"], fields["adapter.type"], fields["adapter.lora.alpha"]) == ("adapter", "lora", 0.0)
    assert fields["general.architecture"] == {"mistral": "llama", "gemma3_text": "gemma3"}.get(family, family)
    tensors = {tensor.name: np.array(tensor.data) for tensor in reader.tensors}
    base = {name: rows.detach().clone() for name, rows in layout_of(model).neuron_rows(1).items()}
    delta.apply(model, 0.5)
    moved = {name: (rows - base[name])[0] for name, rows in layout_of(model).neuron_rows(1).items()}
    a, b = tensors["blk.1.ffn_down.weight.lora_a"], tensors["blk.1.ffn_down.weight.lora_b"]
    np.testing.assert_allclose((b @ a).T, moved["down"], atol=1e-6)
    a, b = tensors["blk.1.ffn_up.weight.lora_a"], tensors["blk.1.ffn_up.weight.lora_b"]
    up = (b @ a)[-moved["up"].shape[0] :]
    np.testing.assert_allclose(up, moved["up"], atol=1e-6)


def test_a_gguf_lora_refuses_in_one_line(tmp_path):
    for family, fault in (("mixtral", "fused experts"), ("llama", "is empty")):
        model = tiny_model(family)
        with pytest.raises(ArtifactError, match=fault):
            export_gguf_lora(random_delta(model, share=0.2 if family == "mixtral" else 0), model, tmp_path / "a")
    model = tiny_model("llama")
    model.config.model_type = "unheard_of"
    with pytest.raises(PrerequisiteError, match="no architecture of that name"):
        gguf_architecture(model)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def folder(tmp_path):
    """A saved model, with one artifact of each kind."""
    tiny_model("llama").save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    model, _ = open_model(str(tmp_path / "model"), device="cpu")
    direction_of(model).save(tmp_path / "Direction")
    two_layers(model).save(tmp_path / "SteeringRecipe")
    random_delta(model).save(tmp_path / "Delta")
    name = "model.layers.0.mlp.up_proj.weight"
    weights = model.get_parameter(name).detach()
    ElementDelta.between(
        {name: weights - 0.5}, model, {name: torch.rand(weights.shape) < 0.1}, origin=origin_of(model, None),
        languages=["eu"],
    ).save(tmp_path / "ElementDelta")  # fmt: skip
    return tmp_path


def export(folder, kind, form, **more):
    out = folder / f"{kind}-{form}"
    return out, run_export(folder / kind, str(folder / "model"), out=out, format=form, device="cpu", **more)


@torch.no_grad()
def test_the_verb_writes_each_form_that_exists(folder, ids):
    model, _ = open_model(str(folder / "model"), device="cpu")
    for kind, strength in (("Direction", {"strength": 0.5}), ("SteeringRecipe", {})):
        recipe = direction_of(model).recipe(0.5, "raw") if kind == "Direction" else two_layers(model)
        with steer(model, recipe):
            expected = model(ids).logits
        out, result = export(folder, kind, "merged", **strength)
        found = AutoModelForCausalLM.from_pretrained(out)(ids).logits
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
        assert result["layers"] == ([1] if kind == "Direction" else [0, 1]) and result["bytes"] > 0
    out, result = export(folder, "Direction", "gguf", strength=0.5)
    fields = {tensor.name: np.array(tensor.data) for tensor in GGUFReader(out).tensors}
    np.testing.assert_allclose(fields["direction.1"], 0.5 * direction_of(model).vector, rtol=1e-6)
    out, result = export(folder, "Delta", "gguf")
    assert GGUFReader(out).get_field("adapter.type").contents() == "lora" and result["values"] > 0
    out, result = export(folder, "ElementDelta", "merged")
    with ElementDelta.load(folder / "ElementDelta").applied(model):
        assert same_bits(bits(model), AutoModelForCausalLM.from_pretrained(out))


@pytest.mark.parametrize(("kind", "form", "able"), [
    ("Direction", "peft", "merged, gguf"), ("SteeringRecipe", "peft", "merged, gguf"),
    ("ElementDelta", "gguf", "merged"), ("ElementDelta", "peft", "merged"),
])  # fmt: skip
def test_a_form_that_does_not_exist_is_one_line_before_the_model_is_opened(kind, form, able, folder):
    with pytest.raises(UsageError, match=f"no place for a {kind}; expected {able}; choose it"):
        run_export(folder / kind, "no-model", out=folder / "out", format=form)
