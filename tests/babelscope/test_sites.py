from typing import get_args

import pytest

from babelscope import Site
from babelscope.errors import SiteError
from babelscope.sites import At


@pytest.mark.parametrize("text", ["12.mlp_gate", "0.resid_in", "embed", "logits"])
def test_a_site_prints_as_it_is_read(text):
    assert str(Site.parse(text)) == text


@pytest.mark.parametrize("text", ["mlp_gate", "3.embed", "3.mlp", "-1.resid_out", "3.", "", "3.mlp_gate "])
def test_what_is_no_place_is_refused(text):
    with pytest.raises(SiteError, match="expected|0 or more"):
        Site.parse(text)


def test_negative_layers_are_refused():
    with pytest.raises(SiteError, match="count from 0"):
        Site(-1, "resid_out")


@pytest.mark.parametrize(
    ("name", "family", "site"),
    [
        ("blocks.5.hook_resid_post", None, "5.resid_out"),
        ("blocks.0.hook_resid_pre", None, "0.resid_in"),
        ("blocks.12.attn.hook_z", "gemma2", "12.attn_heads"),
        ("blocks.3.mlp.hook_post", "llama", "3.mlp_inner"),
        ("blocks.3.mlp.hook_post", "gpt2", "3.mlp_inner"),
        ("blocks.3.mlp.hook_post", "mixtral", "3.mlp_out"),
        ("blocks.3.hook_mlp_out", "llama", "3.mlp_out"),
        ("blocks.3.mlp.hook_out", "gemma2", "3.mlp_out"),
        ("blocks.3.mlp.hook_out", "bloom", "3.resid_out"),
        ("blocks.3.mlp.gate.hook_out", "olmoe", "3.router"),
        ("embed.hook_out", None, "embed"),
        ("unembed.hook_out", None, "logits"),
        ("model.layers.5", None, "5.resid_out"),
        ("model.layers.5.mlp", None, "5.mlp_out"),
        ("model.language_model.layers.5", None, "5.resid_out"),
        ("gpt_neox.layers.2.attention", None, "2.attn_out"),
        ("model.decoder.layers.2.fc2", None, "2.mlp_out"),
        ("transformer.h.7", None, "7.resid_out"),
        ("transformer.h.7.mlp", "gpt2", "7.mlp_out"),
        ("transformer.h.7.mlp", "bloom", "7.resid_out"),
        ("lm_head", None, "logits"),
    ],
)
def test_a_hooks_name_is_a_site(name, family, site):
    assert str(Site.from_hook_name(name, family)) == site


@pytest.mark.parametrize(
    ("name", "family", "word"),
    [
        ("blocks.3.hook_mlp_out", None, "pass family"),
        ("transformer.h.7.mlp", None, "bloom"),
        ("blocks.3.hook_mlp_out", "gemma2", "no site is there in gemma2"),
        ("blocks.3.mlp.gate.hook_out", "llama", "no site is there"),
        ("blocks.3.hook_q", "llama", "no known name"),
        ("blocks.hook_resid_post", None, "no known name"),
        ("model.layers.5.self_attn.q_proj", None, "no known name"),
        ("", None, "no known name"),
    ],
)
def test_a_hook_that_is_no_site_is_refused(name, family, word):
    with pytest.raises(SiteError, match=word):
        Site.from_hook_name(name, family)


@pytest.mark.parametrize(
    "family", ["llama", "phi3", "gemma2", "gemma3_text", "gpt2", "bloom", "opt", "gpt_neox", "mixtral"]
)
@pytest.mark.parametrize("at", get_args(At))
def test_names_in_transformer_lens_come_back_as_the_site(family, at):
    site = Site(None if at in ("embed", "logits") else 4, at)
    gone = {"mlp_gate", "mlp_inner"} if family == "mixtral" else {"router"}
    gone |= {"mlp_gate"} if family not in ("gpt2", "bloom", "opt", "gpt_neox") else set()
    if at in gone:
        with pytest.raises(SiteError, match="no hook there"):
            site.transformer_lens(family)
        return
    back = Site.from_hook_name(site.transformer_lens(family), family)
    assert back == (Site(4, "mlp_inner") if at == "mlp_gate" else site)
