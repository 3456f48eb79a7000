"""Exports load in plain transformers and in peft, and speak as the model with the delta does."""

import json
import sys

import pytest
import torch
from conftest import CONFIGS, tiny_model
from delta_cases import bits, random_delta, same_bits
from peft import AutoPeftModelForCausalLM, PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from babelscope import origin_of
from babelscope.adapters.peft import export_adapter
from babelscope.errors import ArtifactError, PrerequisiteError
from babelscope.subnetworks.delta import Delta

# peft 0.21 asks a model for a property that transformers 5.23 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
DENSE = [family for family in CONFIGS if family not in ("mixtral", "qwen3_moe", "olmoe")]


def some_layers(model):
    """Seven neurons of layer 0, one of layer 2, none of layer 1."""
    whole = random_delta(model, share=1.0)
    width = whole.n_neurons
    rows = torch.tensor([*range(3, width, width // 6 - 1)][:7] + [2 * width + 5])
    return Delta(
        origin=whole.origin,
        languages=whole.languages,
        n_neurons=width,
        offsets=torch.tensor([0, 7, 7, 8]),
        indices=whole.indices[rows],
        **{role: change[rows].clone() for role, change in whole.rows.items()},
    )


@torch.no_grad()
@pytest.mark.parametrize("family", DENSE)
def test_peft_gives_the_logits_of_the_delta(family, tmp_path, ids):
    model = tiny_model(family)
    before, delta = bits(model), some_layers(model)
    plain = model(ids).logits
    path = export_adapter(delta, model, tmp_path / "adapter", scale=0.5)
    with delta.applied(model, 0.5):
        expected = model(ids).logits
    assert same_bits(before, model)
    wrapped = PeftModel.from_pretrained(model, str(path))
    found = wrapped(ids).logits
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert (expected - plain).abs().max() > 100 * (found - expected).abs().max()


def test_ranks_are_the_neurons_of_each_layer(tmp_path):
    model = tiny_model("phi3")
    path = export_adapter(some_layers(model), model, tmp_path / "adapter")
    config = json.loads((path / "adapter_config.json").read_text())
    expected = {
        "model.layers.0.mlp.gate_up_proj": 14,
        "model.layers.0.mlp.down_proj": 7,
        "model.layers.2.mlp.gate_up_proj": 2,
        "model.layers.2.mlp.down_proj": 1,
    }
    assert config["rank_pattern"] == config["alpha_pattern"] == expected
    assert sorted(config["target_modules"]) == sorted(expected)
    assert not any("layers.1" in name for name in load_file(path / "adapter_model.safetensors"))


def test_the_merged_adapter_is_the_base_plus_the_rows(tmp_path):
    model = tiny_model("llama")
    delta = some_layers(model)
    path = export_adapter(delta, model, tmp_path / "adapter")
    wrapped = PeftModel.from_pretrained(tiny_model("llama"), str(path)).merge_and_unload()
    delta.apply(model)
    # Each value of B @ A is a sum of one product and zeros.
    assert same_bits(bits(model), wrapped)


def test_the_adapter_of_the_reference_model_keeps_its_layers_apart(reference, tmp_path):
    model, tokenizer = reference
    delta = random_delta(model, share=0.02)
    ids = tokenizer("Kaixo, mundua!", return_tensors="pt").input_ids
    path = export_adapter(delta, model, tmp_path / "adapter")
    with torch.no_grad():
        with delta.applied(model):
            expected = model(ids).logits
        wrapped = PeftModel.from_pretrained(model, str(path))
        found = wrapped(ids).logits
        wrapped.unload()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def adapter_of(model, path):
    """The adapter's folder, and the logits that it is to give."""
    delta, ids = random_delta(model, share=0.02), torch.arange(3, 9)[None]
    with torch.no_grad(), delta.applied(model):
        return export_adapter(delta, model, path), ids, model(ids).logits


@torch.no_grad()
def check_opens_alone(path, ids, expected):
    opened = AutoPeftModelForCausalLM.from_pretrained(str(path), dtype=torch.float32)
    torch.testing.assert_close(opened(ids).logits, expected, rtol=1e-5, atol=1e-5)


def test_the_adapter_of_the_reference_model_opens_alone(reference, tmp_path):
    check_opens_alone(*adapter_of(reference[0], tmp_path / "adapter"))


def test_the_adapter_of_a_folder_opens_from_anywhere(tmp_path, monkeypatch):
    tiny_model("llama").save_pretrained(tmp_path / "base")
    monkeypatch.chdir(tmp_path)
    model = AutoModelForCausalLM.from_pretrained("base").eval()
    made = adapter_of(model, tmp_path / "adapter")
    assert str(tmp_path / "base") in (tmp_path / "adapter" / "README.md").read_text()
    monkeypatch.chdir(tmp_path / "adapter")
    check_opens_alone(*made)


def test_the_adapter_of_a_hub_model_names_its_id_and_commit(tmp_path):
    model = tiny_model("llama")
    model.config._name_or_path, model.config._commit_hash = "lab/tiny", "0123abc"
    path, *_ = adapter_of(model, tmp_path / "adapter")
    config = json.loads((path / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == ("lab/tiny", "0123abc")


def test_a_model_made_in_memory_says_how_its_adapter_is_used(tmp_path):
    path, *_ = adapter_of(tiny_model("llama"), tmp_path / "adapter")
    assert json.loads((path / "adapter_config.json").read_text())["base_model_name_or_path"] is None
    assert "open the model, then `peft.PeftModel.from_pretrained(model, adapter)`" in (path / "README.md").read_text()


@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe", "olmoe"])
def test_experts_are_refused_in_one_line(family, tmp_path):
    model = tiny_model(family)
    with pytest.raises(ArtifactError, match="fused experts") as caught:
        export_adapter(random_delta(model), model, tmp_path / "adapter")
    assert "\n" not in str(caught.value) and not (tmp_path / "adapter").exists()


def test_what_can_not_be_exported_leaves_nothing(tmp_path):
    model = tiny_model("llama")
    with pytest.raises(ArtifactError, match="made for"):
        export_adapter(random_delta(tiny_model("mistral")), model, tmp_path / "adapter")
    with pytest.raises(ArtifactError, match="is empty"):
        export_adapter(random_delta(model, share=0.0), model, tmp_path / "adapter")
    assert not list(tmp_path.iterdir())
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "file").touch()
    with pytest.raises(ArtifactError, match="already there"):
        export_adapter(random_delta(model), model, tmp_path / "adapter")


def test_a_missing_library_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    model = tiny_model("llama")
    with pytest.raises(PrerequisiteError, match=r"pip install 'babelscope\[peft\]'"):
        export_adapter(random_delta(model), model, tmp_path / "adapter")


def test_exporting_leaves_the_model_as_it_was(tmp_path):
    model = tiny_model("gpt2")
    before, origin = bits(model), origin_of(model, None)
    export_adapter(random_delta(model), model, tmp_path / "adapter")
    assert same_bits(before, model) and origin_of(model, None) == origin
