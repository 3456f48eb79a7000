"""nnsight meets the same tensors at the same places, counts the same, and steers the same."""

import pytest
import torch
from conftest import tiny_tokenizer
from family_cases import FORMS, IDS, MASK, MOE, checkpoint, opened, read_all, site, sites_of
from nnsight.modeling.transformers import TransformersModel
from steering_cases import push

from babelscope import Gate, Operation, Site, observe, steer
from babelscope.adapters import nnsight
from babelscope.errors import PrerequisiteError, SiteError
from babelscope.steering.single import changes_of_pass

TEXTS = {"en": ["the cat sat", "a dog barks here", "x"], "fi": ["kissa istui", "koira haukkuu"]}
NEURONS = ("mlp_gate", "mlp_inner")


def wrapped(form):
    return TransformersModel(opened(form).model, task="text-generation", tokenizer=tiny_tokenizer())


def within(form):
    return [at for at in sites_of(form) if not (FORMS[form][0] in MOE and at in NEURONS)]


def ordered(form):
    return nnsight.in_order([site(at) for at in within(form)], 3)


@torch.no_grad()
@pytest.mark.parametrize("form", FORMS)
def test_the_same_tensor_stands_at_each_site(form):
    traced, places, expected = wrapped(form), ordered(form), read_all(opened(form))
    with traced.trace({"input_ids": IDS}):
        found = [nnsight.read(traced, place, tokens=7) for place in places]
        found = found.save()
    for place, value in zip(places, found, strict=True):
        torch.testing.assert_close(value, expected[place.at], rtol=0, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("form", ["llama", "gemma2", "gpt2", "opt", "bloom", "gpt_neox"])
def test_a_write_in_a_trace_is_a_write_at_the_site(form):
    traced, layout = wrapped(form), opened(form)
    for place in ordered(form):
        if place.at == "resid_mid" and form != "bloom":
            continue
        hold = read_all(layout)[place.at] * 0 + 0.5
        with traced.trace({"input_ids": IDS}):
            nnsight.write(traced, place, hold)
            found = traced.output.logits.save()
        with layout.edit(place, lambda value, hold=hold: hold):
            expected = layout.model(input_ids=IDS).logits
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


RECIPE = [
    push(site=Site(0, "mlp_out")),
    push(1, site=Site(1, "resid_out"), positions=(1, -1)),
    Operation(Site(1, "mlp_gate"), "replace", torch.tensor([2.0, -1.0]), indices=torch.tensor([3, 40])),
    Operation(Site(2, "attn_heads"), "scale", torch.linspace(0, 1, 32), strength=0.7, gate=Gate()),
]


@torch.no_grad()
@pytest.mark.parametrize("form", ["llama", "gemma2", "gpt2", "opt"])
def test_a_recipe_in_a_trace_is_the_recipe_here(form):
    traced, layout = wrapped(form), opened(form)
    changes = changes_of_pass(layout, RECIPE, IDS, attention_mask=MASK)
    with traced.trace({"input_ids": IDS, "attention_mask": MASK}):
        nnsight.apply_changes(traced, changes, tokens=7)
        found = traced.output.logits.save()
    positions = (MASK.cumsum(1) - 1).clamp(min=0)
    plain = layout.model(input_ids=IDS, attention_mask=MASK, position_ids=positions).logits
    with steer(layout.model, RECIPE):
        expected = layout.model(input_ids=IDS, attention_mask=MASK, position_ids=positions).logits
    real = MASK.bool()
    torch.testing.assert_close(found[real], expected[real], rtol=0, atol=1e-5)
    assert not torch.allclose(expected[real], plain[real], atol=0.1)


@pytest.mark.parametrize("where", ["here", "local"])
@pytest.mark.parametrize("form", ["llama", "gemma2", "gpt2", "opt", "mixtral"])
def test_an_observation_through_nnsight_counts_the_same(form, where, tokenizer):
    sites = [at for at in within(form) if at != "router"] + (["router"] if form == "mixtral" else [])
    expected = observe(opened(form).model, tokenizer, TEXTS, sites=sites, shards=4, batch_size=2)
    found = nnsight.observe_traced(wrapped(form), tokenizer, TEXTS, where=where, sites=sites, shards=4, batch_size=2)
    assert found.origin.model_hash == expected.origin.model_hash
    assert found.tokens == expected.tokens
    for at in sites:
        assert torch.equal(found[at].active, expected[at].active), at
        assert torch.equal(found[at].shard_active, expected[at].shard_active), at
        torch.testing.assert_close(found[at].sum, expected[at].sum, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(found[at].norm, expected[at].norm, rtol=1e-9, atol=1e-9)


def test_a_model_without_its_weights_can_be_named_and_asked_for(tokenizer):
    traced = TransformersModel(str(checkpoint("llama")), task="text-generation", tokenizer=tokenizer)
    assert nnsight.layout_in(traced).place(Site(1, "mlp_gate")).path == "model.layers.1.mlp.act_fn"
    with pytest.raises(SiteError, match="observe mlp_gate"):
        nnsight.observe_traced(traced, tokenizer, TEXTS, sites=["mlp_inner"])


def test_nothing_is_sent_without_permission(tokenizer):
    traced = wrapped("llama")
    with pytest.raises(PrerequisiteError, match=r"5 documents .* allow_upload=True"):
        nnsight.observe_traced(traced, tokenizer, TEXTS, where="ndif")
    with pytest.raises(PrerequisiteError, match="'NDIF' is unknown"):
        nnsight.observe_traced(traced, tokenizer, TEXTS, where="NDIF", allow_upload=True)


def test_places_that_no_module_holds_are_refused_in_one_line():
    for form, at in (("mixtral", "mlp_gate"), ("mixtral", "mlp_inner"), ("llama", "router"), ("gpt_neox", "resid_mid")):
        with pytest.raises(SiteError, match=rf"site '1\.{at}'"):
            nnsight.read(wrapped(form), Site(1, at))
    for form, at in (("mixtral", "router"), ("llama", "resid_mid")):
        with pytest.raises(SiteError, match="no single module"):
            nnsight.write(wrapped(form), Site(1, at), torch.zeros(1))
