"""Every site is where it says, on a tiny random model of each family."""

import numpy as np
import pytest
import torch
from conftest import CONFIGS, tiny_model, tiny_tokenizer

from babelscope import Site, layout_of, origin_of, read_site
from babelscope.errors import SiteError

DENSE = [family for family in CONFIGS if family not in ("mixtral", "qwen3_moe", "olmoe")]
MOE = ["mixtral", "qwen3_moe", "olmoe"]


def down(layout, layer, inner):
    projection = layout.layer(layer).get_submodule(layout.family.down)
    return projection(inner)


@pytest.mark.parametrize("family", DENSE)
def test_down_projection_of_inner_is_mlp_out(family, ids):
    model = tiny_model(family)
    layout = layout_of(model)
    inner, out = (read_site(model, ids, Site(1, at)) for at in ("mlp_inner", "mlp_out"))
    assert inner.shape == (3, 7, layout.d_neuron)
    torch.testing.assert_close(down(layout, 1, inner), out)
    torch.testing.assert_close(inner @ layout.down_weight(1).T, out if family != "gpt2" else out - bias(layout))


def bias(layout):
    return layout.layer(1).mlp.c_proj.bias


@pytest.mark.parametrize("family", CONFIGS)
def test_a_layer_leaves_what_the_next_one_meets(family, ids):
    model = tiny_model(family)
    assert torch.equal(read_site(model, ids, Site(1, "resid_out")), read_site(model, ids, Site(2, "resid_in")))


@pytest.mark.parametrize("family", CONFIGS)
def test_heads_through_their_projection_are_attn_out(family, ids):
    model = tiny_model(family)
    layout = layout_of(model)
    heads = read_site(model, ids, Site(1, "attn_heads"))
    assert heads.shape[:3] == (3, 7, 4)
    projection = layout.layer(1).get_submodule(layout.family.heads_out)
    torch.testing.assert_close(projection(heads.flatten(2)), read_site(model, ids, Site(1, "attn_out")))


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3", "gpt2", *MOE])
def test_the_stream_is_a_sum(family, ids):
    model = tiny_model(family)
    start, attn, middle, mlp, end = (
        read_site(model, ids, Site(1, at)) for at in ("resid_in", "attn_out", "resid_mid", "mlp_out", "resid_out")
    )
    torch.testing.assert_close(start + attn, middle)
    torch.testing.assert_close(middle + mlp, end)


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text"])
def test_gate_times_up_is_inner(family, ids):
    model = tiny_model(family)
    mlp = layout_of(model).layer(1).mlp
    met = []
    handle = mlp.register_forward_pre_hook(lambda _, args: met.append(args[0]))
    gate, inner = (read_site(model, ids, Site(1, at)) for at in ("mlp_gate", "mlp_inner"))
    handle.remove()
    torch.testing.assert_close(mlp.act_fn(mlp.gate_proj(met[0])), gate)
    torch.testing.assert_close(gate * mlp.up_proj(met[0]), inner)


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


@pytest.mark.parametrize("family", MOE)
def test_router_reads_a_score_for_every_expert(family, ids):
    assert read_site(tiny_model(family), ids, Site(2, "router")).shape == (3, 7, 4)


@pytest.mark.parametrize("family", CONFIGS)
def test_embed_and_logits_are_the_ends(family, ids):
    model = tiny_model(family)
    logits = model(input_ids=ids).logits
    seen = read_site(model, ids, Site(None, "logits"))
    cap = getattr(model.config, "final_logit_softcapping", None)
    torch.testing.assert_close(torch.tanh(seen / cap) * cap if cap else seen, logits)
    torch.testing.assert_close(read_site(model, ids, Site(None, "embed")), model.get_input_embeddings()(ids))


@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize("at", ["resid_in", "attn_heads", "attn_out", "mlp_gate", "mlp_out", "resid_out"])
def test_a_write_changes_what_follows_and_is_gone_after(family, at, ids):
    model = tiny_model(family)
    layout, before = layout_of(model), model(input_ids=ids).logits
    with layout.edit(Site(1, at), lambda value: value * 0 + 1):
        assert not torch.allclose(model(input_ids=ids).logits, before)
    assert torch.equal(model(input_ids=ids).logits, before)
    with layout.edit(Site(1, at), lambda value: value.clone()):
        assert torch.equal(model(input_ids=ids).logits, before)


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


def test_unknown_family_names_the_modules_it_saw():
    model = tiny_model("llama")
    model.config.model_type = "novel"
    with pytest.raises(SiteError, match=r"model\.layers\.\*\.mlp\.act_fn"):
        layout_of(model)


def test_origin_ignores_dtype_and_padding_and_sees_the_shape(tokenizer):
    before = origin_of(tiny_model("llama"), tokenizer)
    tokenizer(["a", "bc"], padding=True)
    assert origin_of(tiny_model("llama", dtype=torch.bfloat16), tokenizer) == before
    assert origin_of(tiny_model("qwen2"), tokenizer).model_hash != before.model_hash
    assert origin_of(tiny_model("llama"), tiny_tokenizer(bos=False)).tokenizer_hash != before.tokenizer_hash
