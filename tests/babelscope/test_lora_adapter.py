"""A trained LoRA is peft's own folder, and its change is alpha / r · B A, to be added and subtracted exactly."""

import json

import numpy as np
import pytest
import torch
from conftest import tiny_model
from training_cases import material, random_rows

from babelscope import layout_of
from babelscope.adaptation import adapt, build_student
from babelscope.adapters.lora_adapter import LoraAdapter
from babelscope.adapters.peft_training import PeftStudent
from babelscope.errors import ArtifactError, PrerequisiteError

peft = pytest.importorskip("peft")
# peft 0.21 asks a model for a property that transformers 5.23 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


def trained(family="llama", method="lora", seed=0, steps=3):
    model = tiny_model(family)
    result = adapt(material(model), method, steps=steps, learning_rate=1e-2, tokens_per_step=128, rank=2, seed=seed)
    return model, result.adapter


@pytest.mark.parametrize("method", ["lora", "lora-attention"])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_peft_loads_the_folder_and_computes_what_the_change_gives(family, method, tmp_path):
    model, adapter = trained(family, method)
    adapter.save(tmp_path / "lora")
    ids = random_rows().input_ids
    with adapter.change(model).applied(model), torch.no_grad():
        expected = model(ids).logits
    with torch.no_grad():
        base = model(ids).logits
        wrapped = peft.PeftModel.from_pretrained(tiny_model(family), tmp_path / "lora")
        assert torch.allclose(wrapped(ids).logits, expected, atol=1e-5)
    assert not torch.allclose(base, expected, atol=1e-3)
    loaded = LoraAdapter.load(tmp_path / "lora")
    assert loaded.config == adapter.config and loaded.changes_values
    assert all(torch.equal(value, loaded.tensors[name]) for name, value in adapter.tensors.items())


PLACES = {
    ("llama", "mlp"): ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"),
    ("llama", "attention"): ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"),
    ("gpt2", "mlp"): ("mlp.c_fc", "mlp.c_proj"),
    ("gpt2", "attention"): ("attn.c_attn", "attn.c_proj"),
    ("opt", "mlp"): ("fc1", "fc2"),
    ("bloom", "attention"): ("self_attention.query_key_value", "self_attention.dense"),
}


@pytest.mark.parametrize(("family", "where"), PLACES)
def test_an_adapter_of_the_mlps_or_of_the_attention_stands_nowhere_else(family, where):
    """A GPT-2 has a `c_proj` in both."""
    layout = layout_of(tiny_model(family))
    expected = {f"{layout.family.layers}.{n}.{name}" for n in range(3) for name in PLACES[family, where]}
    lora = PeftStudent.lora(layout, rank=2, where=where)
    with lora.installed():
        assert set(lora.adapter().modules) == expected
    if family != "gpt2":
        shira = PeftStudent.shira(layout, rank=2, where=where)
        with shira.installed():
            assert set(shira.shira_elements()) == {f"{name}.weight" for name in expected}


@pytest.mark.parametrize(
    ("family", "method", "message"),
    [
        ("gpt2", "shira", "the projections of gpt2 are Conv1D"),
        ("qwen3_moe", "lora", "qwen3_moe has fused experts"),
        ("mixtral", "shira", "mixtral has fused experts"),
    ],
)
def test_what_peft_cannot_adapt_is_one_line_before_the_work(family, method, message):
    with pytest.raises(PrerequisiteError, match=message):
        build_student(method, layout_of(tiny_model(family)))


def test_a_rank_below_one_is_one_line():
    with pytest.raises(PrerequisiteError, match="rank 0 came for 'lora'"):
        build_student("lora", layout_of(tiny_model("llama")), rank=0)


def test_the_change_is_the_scaled_product_in_float64():
    model, adapter = trained()
    for name, part in adapter.change(model, languages=("eu",)).elements.items():
        a, b = (
            adapter.tensors[f"base_model.model.{name.removesuffix('.weight')}.lora_{x}.weight"].double().numpy()
            for x in "AB"
        )
        product = (2.0 * b @ a).astype(np.float32)  # alpha is twice the rank
        assert np.array_equal(part.values.numpy().reshape(part.shape), product)


def test_a_difference_of_changes_is_exact_where_one_of_factors_is_not():
    model, task = trained()
    _, general = trained(seed=1)
    residual = task.change(model) - general.change(model)
    for name, part in residual.elements.items():
        module = name.removesuffix(".weight")
        exact = (task.product(module).float() - general.product(module).float()).flatten()
        assert torch.equal(part.values, exact)
        a, b = (
            task.tensors[f"base_model.model.{module}.lora_{x}.weight"]
            - general.tensors[f"base_model.model.{module}.lora_{x}.weight"]
            for x in "AB"
        )
        assert not torch.allclose(2.0 * (b @ a).flatten(), exact, rtol=0.1)


@pytest.mark.parametrize(
    ("setting", "value"),
    [("peft_type", "IA3"), ("use_dora", True), ("bias", "all"), ("use_rslora", True), ("modules_to_save", ["lm_head"])],
)
def test_an_adapter_that_is_more_than_its_product_is_refused(tmp_path, setting, value):
    _, adapter = trained(steps=1)
    folder = adapter.save(tmp_path / "lora")
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, setting: value}))
    with pytest.raises(ArtifactError, match=setting):
        LoraAdapter.load(folder)


def test_what_is_no_adapter_or_of_another_model_is_refused(tmp_path):
    _, adapter = trained(steps=1)
    with pytest.raises(ArtifactError, match="has no adapter_config.json"):
        LoraAdapter.load(tmp_path)
    with pytest.raises(ArtifactError, match="expected the model that it was trained on"):
        adapter.change(tiny_model("gpt2"))
    with pytest.raises(ArtifactError, match="strange"):
        LoraAdapter(adapter.config, {**adapter.tensors, "strange": torch.zeros(1)})


def test_patterns_of_ranks_and_alphas_are_heeded(tmp_path):
    model = tiny_model("llama")
    config = peft.LoraConfig(
        r=2, lora_alpha=6, target_modules=["up_proj"], rank_pattern={"layers.1.mlp.up_proj": 4},
        alpha_pattern={"layers.1.mlp.up_proj": 10}, init_lora_weights=False,
    )  # fmt: skip
    wrapped = peft.get_peft_model(tiny_model("llama"), config)
    wrapped.save_pretrained(str(tmp_path / "lora"))
    change = LoraAdapter.load(tmp_path / "lora").change(model)
    for layer in (0, 1):
        module = wrapped.get_submodule(f"base_model.model.model.layers.{layer}.mlp.up_proj")
        part = change.elements[f"model.layers.{layer}.mlp.up_proj.weight"]
        assert torch.allclose(part.values.view(part.shape), module.get_delta_weight("default"), atol=1e-6)
