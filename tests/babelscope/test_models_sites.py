"""Every site of every family, on checkpoints from disk: what it holds, what a write does; looking changes no bit."""

from contextlib import ExitStack

import pytest
import torch
from family_cases import (
    DTYPES,
    FORMS,
    IDS,
    MASK,
    MOE,
    SITES,
    by_hand,
    lacking,
    opened,
    plain_logits,
    read_all,
    site,
    sites_of,
)
from family_configs import LACKING
from render_families_table import PAGE, page

from babelscope import Site, read_site
from babelscope.errors import SiteError
from babelscope.models.module_map import ModuleMap

CELLS = [(form, at) for form in FORMS for at in sites_of(form)]


def logits(layout, padded=False):
    with torch.no_grad():
        return layout.model(input_ids=IDS, attention_mask=MASK if padded else None, use_cache=False).logits


@pytest.mark.parametrize("form", FORMS)
def test_each_site_holds_what_is_worked_out_by_hand(form):
    got, want = read_all(opened(form)), by_hand(form)
    assert set(want) == set(sites_of(form))
    for at, expected in want.items():
        torch.testing.assert_close(got[at], expected, rtol=1e-4, atol=1e-4, msg=lambda text, at=at: f"{at}: {text}")
        assert got[at].std() > 0.01


@pytest.mark.parametrize("form", FORMS)
def test_places_that_a_form_lacks_are_refused(form):
    for at, word in lacking(form).items():
        with pytest.raises(SiteError, match=word):
            read_site(opened(form).model, IDS, site(at))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", FORMS)
def test_looking_at_every_site_changes_no_bit(form, dtype):
    layout = opened(form, dtype)
    for padded in (False, True):
        assert torch.equal(logits(layout, padded), plain_logits(form, dtype, padded))
        for look in (lambda value: None, lambda value: value.clone()):
            with ExitStack() as stack:
                for at in sites_of(form):
                    for layer in range(1 if at in ("embed", "logits") else layout.n_layers):
                        stack.enter_context(layout.edit(site(at, layer), look))
                assert torch.equal(logits(layout, padded), plain_logits(form, dtype, padded))
        assert torch.equal(logits(layout, padded), plain_logits(form, dtype, padded))


@pytest.mark.parametrize(("form", "at"), CELLS)
def test_a_write_at_each_site_is_what_later_readers_see(form, at):
    # In float32 this is measured for the page of families.
    layout = opened(form, dtype := "bfloat16")
    before = read_site(layout.model, IDS, site(at))
    hold = torch.randn(before.shape, generator=torch.Generator().manual_seed(3)).to(before.dtype)
    seen = []
    with layout.edit(site(at), lambda value: hold), layout.watch(site(at), lambda value, *_: seen.append(value)):
        moved = logits(layout)
    assert torch.equal(seen[0], hold)
    assert not torch.allclose(moved, plain_logits(form, dtype, False), atol=1e-2)
    assert torch.equal(logits(layout), plain_logits(form, dtype, False))


@pytest.mark.parametrize(("form", "at"), CELLS)
def test_a_write_at_some_tokens_leaves_earlier_ones_alone(form, at):
    layout = opened(form)

    def last(value):
        new = value.clone()
        new[:, -1] = -new[:, -1] + 1
        return new

    with layout.edit(site(at), last):
        moved = logits(layout)
    plain = plain_logits(form, "float32", False)
    # Experts multiply in groups, whose sizes change where a last token is routed elsewhere.
    near = 1e-5 if FORMS[form][0] in MOE else 0.0
    torch.testing.assert_close(moved[:, :-1], plain[:, :-1], rtol=0, atol=near)
    assert not torch.allclose(moved[:, -1], plain[:, -1], atol=1e-2)


STREAMED = [form for form in FORMS if "resid_mid" in sites_of(form)]


@pytest.mark.parametrize("form", STREAMED)
def test_a_write_between_attention_and_mlp_reaches_both_branches(form):
    """What follows must be what follows from an attention output that leads to the same stream."""
    layout, got = opened(form), read_all(opened(form))
    family = FORMS[form][0]
    shift = torch.randn(got["attn_out"].shape, generator=torch.Generator().manual_seed(4)) / 4
    with layout.edit(Site(1, "attn_out"), lambda value: value + shift):
        expected = read_all(layout)
    with layout.edit(Site(1, "resid_mid"), lambda value: expected["resid_mid"]):
        found = read_all(layout)
    assert torch.equal(found["attn_out"], got["attn_out"])
    for at in ("mlp_gate", "mlp_inner", "mlp_out", "resid_out", "logits"):
        torch.testing.assert_close(found[at], expected[at], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(found["resid_out"], got["resid_out"], atol=1e-2), family


@pytest.mark.parametrize("order", [("resid_mid", "resid_out"), ("resid_out", "resid_mid")])
def test_a_write_after_the_block_has_the_last_word(order):
    layout, hold = opened("llama"), torch.full((3, 7, 32), 2.0)
    with ExitStack() as stack:
        for at in order:
            stack.enter_context(layout.edit(Site(1, at), lambda value: hold))
        assert torch.equal(read_site(layout.model, IDS, Site(2, "resid_in")), hold)


@pytest.mark.parametrize("form", [form for form, (family, _) in FORMS.items() if family in MOE])
def test_written_router_scores_choose_and_weigh_the_experts(form):
    layout = opened(form)
    forced = torch.tensor([0.0, 3.0, -1.0, 2.0]).expand(3, 7, 4)
    with layout.edit(Site(1, "router"), lambda value: forced):
        got = read_all(layout)
    assert got["routes"].unique().tolist() == [1, 3]
    share = torch.softmax(forced[0, 0], dim=-1)[[1, 3]]
    if getattr(layout.model.config, "norm_topk_prob", True):
        share = share / share.sum()
    down = layout.neuron_rows(1)["down"][[1, 3]]
    by_expert = torch.stack([got["mlp_inner"][got["routes"] == expert].view(3, 7, -1) for expert in (1, 3)])
    expected = torch.einsum("e,ebtn,end->btd", share, by_expert, down.detach())
    torch.testing.assert_close(got["mlp_out"], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("form", [form for form, (family, _) in FORMS.items() if family in MOE])
def test_a_write_in_the_experts_is_what_their_down_projections_meet(form):
    layout, got = opened(form), read_all(opened(form))
    with layout.edit(Site(1, "mlp_inner"), lambda value: value * 2):
        doubled = read_all(layout)
    torch.testing.assert_close(doubled["mlp_out"], got["mlp_out"] * 2, rtol=1e-4, atol=1e-4)
    assert torch.equal(doubled["mlp_gate"], got["mlp_gate"])


def test_looks_at_the_experts_may_close_in_any_order():
    layout = opened("mixtral")
    first, second = (layout.edit(Site(1, "mlp_inner"), lambda value, by=by: value * by) for by in (3, 5))
    plain = read_site(layout.model, IDS, Site(1, "mlp_out"))
    first.__enter__()
    second.__enter__()
    torch.testing.assert_close(read_site(layout.model, IDS, Site(1, "mlp_out")), plain * 15, rtol=1e-4, atol=1e-4)
    first.__exit__(None, None, None)
    torch.testing.assert_close(read_site(layout.model, IDS, Site(1, "mlp_out")), plain * 5, rtol=1e-4, atol=1e-4)
    second.__exit__(None, None, None)
    assert torch.equal(read_site(layout.model, IDS, Site(1, "mlp_out")), plain)
    assert "_apply_gate" not in vars(layout.experts(1))


def test_every_place_of_the_design_is_covered():
    assert {at for form in FORMS for at in sites_of(form)} == set(SITES)


def test_the_page_of_families_says_what_was_measured():
    lines = PAGE.read_text(encoding="utf-8").splitlines(keepends=True)
    lacking = tuple(f"| {form} |" for form in LACKING)
    assert "".join(line for line in lines if not line.startswith(lacking)) == page()


def test_a_map_of_the_modules_alone_says_what_the_layout_says_and_cannot_run():
    layout = opened("llama")
    modules = ModuleMap(**vars(layout))
    assert not hasattr(modules, "run") and not hasattr(modules, "edit")
    place = modules.place(Site(1, "mlp_inner"))
    down = layout.model.get_submodule(place.path)
    assert down is layout.model.model.layers[1].mlp.down_proj and place.side == "input"
    torch.testing.assert_close(modules.down_norm(1), down.weight.double().norm(dim=0))
    assert modules.end_of(Site(None, "embed")) is layout.model.get_input_embeddings()
    assert modules.end_of(Site(None, "logits")) is layout.model.get_output_embeddings()
