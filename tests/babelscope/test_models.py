"""Every site is where it says, on a tiny random model of each family."""

import numpy as np
import pytest
import torch
from conftest import CONFIGS, tiny_model, tiny_tokenizer
from safetensors.torch import load_file, save_file

from babelscope import Site, layout_of, observe, open_model, origin_of, read_site
from babelscope.errors import PrerequisiteError, SiteError
from babelscope.evaluation import bits_per_byte

MOE = ["mixtral", "qwen3_moe", "olmoe"]


@pytest.mark.parametrize("family", MOE)
def test_experts_neurons_come_in_the_order_of_tokens(family, ids):
    model = tiny_model(family)
    layer = layout_of(model).layer(1)
    met, routes = [], []
    handles = [
        layer.mlp.register_forward_pre_hook(lambda _, args: met.append(args[0])),
        layer.mlp.gate.register_forward_hook(lambda _, args, out: routes.append(out[2])),
    ]
    value = read_site(model, ids, Site(1, "mlp_gate"))
    for handle in handles:
        handle.remove()
    experts, chosen = layer.mlp.experts, routes[0].view(3, 7, -1)
    for row, token, slot in np.ndindex(3, 7, chosen.shape[-1]):
        weight = experts.gate_up_proj[chosen[row, token, slot]].chunk(2)[0]
        torch.testing.assert_close(value[row, token, slot], experts.act_fn(weight @ met[0][row, token]))


@pytest.mark.parametrize("family", CONFIGS)
def test_embed_and_logits_are_the_ends(family, ids):
    model = tiny_model(family)
    logits = model(input_ids=ids).logits
    seen = read_site(model, ids, Site(None, "logits"))
    cap = getattr(model.config, "final_logit_softcapping", None)
    torch.testing.assert_close(torch.tanh(seen / cap) * cap if cap else seen, logits)
    torch.testing.assert_close(read_site(model, ids, Site(None, "embed")), model.get_input_embeddings()(ids))


def test_expert_choice_of_implementation_comes_back(ids):
    model = tiny_model("mixtral")
    model.set_experts_implementation("eager")
    before = model(input_ids=ids).logits
    with layout_of(model).watch(Site(0, "mlp_gate"), lambda *_: None):
        torch.testing.assert_close(model(input_ids=ids).logits, before)
    assert model.config._experts_implementation == "eager"


def test_wrong_sites_are_refused_in_one_line():
    layout = layout_of(tiny_model("llama"))
    for site, word in [(Site(3, "resid_out"), "0–2"), (Site(0, "router"), "dense")]:
        with pytest.raises(SiteError, match=word), layout.watch(site, lambda *_: None):
            pass


def test_unknown_family_names_the_table_that_fits_or_the_modules_it_saw():
    model = tiny_model("llama")
    model.config.model_type = "novel"
    with pytest.raises(
        SiteError, match=r"names only modules that this model has; try bs\.add_family\('novel', 'llama'"
    ):
        layout_of(model)
    del model.model.layers[1].mlp.act_fn
    with pytest.raises(SiteError, match=r"model\.layers\.\*\.mlp\.act_fn"):
        layout_of(model)


def test_origin_ignores_dtype_and_padding_and_sees_the_shape(tokenizer):
    before = origin_of(tiny_model("llama"), tokenizer)
    tokenizer(["a", "bc"], padding=True)
    assert origin_of(tiny_model("llama", dtype=torch.bfloat16), tokenizer) == before
    assert origin_of(tiny_model("qwen2"), tokenizer).model_hash != before.model_hash
    assert origin_of(tiny_model("llama"), tiny_tokenizer(bos=False)).tokenizer_hash != before.tokenizer_hash


@pytest.fixture
def folder(tmp_path, tokenizer):
    tiny_model("llama").save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    return tmp_path


def test_a_torn_weight_file_is_one_line(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(PrerequisiteError, match="weights could not be read.*fetch them again"):
        open_model(str(folder))


def test_weights_of_another_shape_are_one_line(folder):
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"intermediate_size": 48', '"intermediate_size": 64'))
    with pytest.raises(PrerequisiteError, match="shapes in config.json"):
        open_model(str(folder))


@pytest.mark.filterwarnings("ignore")
def test_a_checkpoint_without_some_weights_is_refused_and_not_made_up(folder):
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(PrerequisiteError, match=r"no weights came for model\.layers\.1\.mlp\.up_proj\.weight;"):
        open_model(str(folder))


@pytest.mark.parametrize("device", ["gpu", "cuda:99"])
def test_a_device_that_is_not_here_is_one_line(folder, device):
    with pytest.raises(PrerequisiteError, match=f"device '{device}' cannot be used here"):
        open_model(str(folder), device=device)


@pytest.mark.parametrize("family", ["gpt2", "opt"])
def test_more_tokens_than_learned_positions_are_one_line(family, tokenizer):
    model, texts = tiny_model(family), {"en": ["x" * 200]}
    for measure in (observe, bits_per_byte):
        with pytest.raises(PrerequisiteError, match="a text of 201 tokens came; .* has 128 positions"):
            measure(model, tokenizer, texts, max_length=256)
        measure(model, tokenizer, texts)  # by itself, as many as there are


def test_a_tokenizer_larger_than_the_model_is_one_line(tokenizer):
    model = tiny_model("llama")
    model.resize_token_embeddings(100)
    with pytest.raises(PrerequisiteError, match="has 100 of them"):
        observe(model, tokenizer, {"en": ["éé"]})
