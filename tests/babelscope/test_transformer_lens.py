"""TransformerLens has the same tensors under the names given, and the same logits under the same steering."""

from functools import cache

import pytest
import torch
from family_cases import FORMS, IDS, checkpoint, opened, read_all, site, sites_of
from steering_cases import push
from transformer_lens.model_bridge import TransformerBridge

from babelscope import Operation, Site, steer
from babelscope.adapters.transformer_lens import hook_name, steering_hooks
from babelscope.errors import SiteError

FAMILIES = ["llama", "gemma2", "gemma3_text", "gpt2", "phi3", "qwen3", "gpt_neox", "bloom", "opt", "mixtral", "olmoe"]


@cache
def bridge(form):
    return TransformerBridge.boot_transformers(str(checkpoint(form)), device="cpu")


def missing(form):
    """Places of the model for which TransformerLens has no hook."""
    moe, plain = form in ("mixtral", "olmoe"), form in ("gpt2", "gpt_neox", "bloom", "opt")
    return {"mlp_gate", "mlp_inner"} if moe else set() if plain else {"mlp_gate"}


@torch.no_grad()
@pytest.mark.parametrize("form", FAMILIES)
def test_the_same_tensor_hangs_at_each_hook(form):
    expected, model = read_all(opened(form)), opened(form).model
    names = {at: hook_name(model, site(at)) for at in sites_of(form) if at not in missing(form)}
    _, cached = bridge(form).run_with_cache(IDS, names_filter=lambda name: name in names.values())
    for at, name in names.items():
        torch.testing.assert_close(cached[name].reshape(expected[at].shape), expected[at], rtol=0, atol=1e-5)


@pytest.mark.parametrize("form", FAMILIES)
def test_places_without_a_hook_are_refused_in_one_line(form):
    for at in missing(form):
        with pytest.raises(SiteError, match="TransformerLens has no hook there"):
            hook_name(opened(form).model, site(at))
    with pytest.raises(SiteError, match="0–2"):
        hook_name(opened(form).model, Site(3, "resid_out"))


def test_the_input_of_the_down_projection_is_not_the_activation():
    """What TransformerLens calls mlp.hook_post is mlp_inner; mlp_gate is another tensor in a gated MLP."""
    got = read_all(opened("llama"))
    assert not torch.allclose(got["mlp_gate"], got["mlp_inner"], atol=0.1)
    assert hook_name(opened("llama").model, Site(1, "mlp_inner")) == "blocks.1.mlp.hook_post"


RECIPE = [
    push(site=Site(0, "mlp_out")),
    push(1, site=Site(1, "resid_out"), positions=(1, -1)),
    push(2, site=Site(0, "attn_out")),
    push(3, site=Site(2, "resid_in"), strength=3.0),
    push(4, site=Site(None, "embed"), strength=1.0),
    Operation(Site(1, "mlp_inner"), "replace", torch.tensor([2.0, -1.0]), indices=torch.tensor([3, 40])),
    Operation(Site(2, "attn_heads"), "scale", torch.linspace(0, 1, 32), strength=0.7),
]


@torch.no_grad()
@pytest.mark.parametrize("form", [form for form in FAMILIES if form not in ("mixtral", "olmoe")])
def test_the_same_steering_gives_the_same_logits(form):
    model = opened(form).model
    for operations in (*([one] for one in RECIPE), RECIPE):
        hooks = steering_hooks(model, operations, IDS)
        found = bridge(form).run_with_hooks(IDS, fwd_hooks=hooks)
        with steer(model, operations):
            expected = model(input_ids=IDS).logits
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
        assert (expected - model(input_ids=IDS).logits).abs().max() > 1e-3


def test_hooks_that_reach_only_a_part_are_refused():
    for form, at in (("llama", "resid_mid"), ("mixtral", "router")):
        width = opened(form).width(at)
        with pytest.raises(SiteError, match="does not reach"):
            steering_hooks(opened(form).model, Operation(Site(1, at), "add", torch.ones(width)), IDS)


def test_an_opt_with_norms_after_has_no_hook_at_its_stream():
    assert "opt with norms after" in FORMS
    with pytest.raises(SiteError, match="before the norm"):
        hook_name(opened("opt with norms after").model, Site(1, "resid_mid"))
