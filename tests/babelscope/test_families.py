"""Every family with a table, on tiny random models: what its sites hold, what writes do, and what wrong tables cost."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers
from family_configs import EVERY_FORM, FORMS, LACKING, NEW, PARALLEL, WITHOUT_ATTENTION, family_model, make

import babelscope as bs
from babelscope import Site, layout_of, read_site
from babelscope.artifacts import Operation
from babelscope.errors import PrerequisiteError, SiteError
from babelscope.models import FAMILIES, Layout
from babelscope.models import families as families_module
from babelscope.models.family_check import Identity
from babelscope.models.wrappers import WRAPPERS
from babelscope.probes.lens.logit_lens import lens_logits
from babelscope.probes.units.heads import record_heads
from babelscope.subnetworks.forms import choose_form

README = Path(__file__).parents[2] / "README.md"
IDS = torch.randint(3, 300, (2, 6), generator=torch.Generator().manual_seed(5))
ROUTED = [form for form, (kind, _) in FORMS.items() if FAMILIES[kind].router]


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS, use_cache=False).logits


def sites(form: str, layer: int = 1) -> list[str]:
    places = ["resid_in", "attn_heads", "attn_out", "resid_mid", "mlp_gate", "mlp_inner", "mlp_out", "resid_out"]
    lacks = {"resid_mid"} if form in PARALLEL else set()
    lacks |= {"mlp_gate"} if form == "lfm2" else set()
    lacks |= {"attn_heads", "attn_out"} if layer in WITHOUT_ATTENTION.get(form, ()) else set()
    return [at for at in places if at not in lacks] + (["router"] if form in ROUTED else [])


def test_every_table_is_tried_and_they_are_as_many_as_readme_says():
    kinds = {kind for kind, _ in EVERY_FORM.values()}
    assert kinds == set(FAMILIES)
    limits = README.read_text(encoding="utf-8").split("## Limits")[1]
    assert f"{len(kinds)} model types and the text parts of {len(WRAPPERS)} multimodal wrappers" in limits
    if LACKING:
        lacks = f"has no {', '.join(LACKING)}, or not their routers' scores"
        pytest.skip(f"transformers {transformers.__version__} {lacks}; the others are tried")


@pytest.mark.parametrize(
    ("form", "dtype"), [*((form, torch.float32) for form in FORMS), *((form, torch.bfloat16) for form in NEW)], ids=str
)
def test_every_identity_of_a_family_holds_and_looking_changes_no_bit(form, dtype):
    found = bs.check_family(family_model(form, dtype))
    assert all(identity.holds for identity in found)
    names = {identity.name for identity in found}
    assert "logits while every site is looked at = logits" in names
    assert ("mlp_out does not see attn_out" in names) == (form in PARALLEL)
    assert any(name.startswith("resid_mid") for name in names) == (form not in PARALLEL)
    assert {identity.layer for identity in found} == {None, 0, 1, 2}


@pytest.mark.parametrize("form", FORMS)
def test_stream_sites_are_hugging_faces_hidden_states(form):
    model = family_model(form)
    with torch.no_grad():
        states = model(input_ids=IDS, output_hidden_states=True, use_cache=False).hidden_states
    for layer in range(3):
        assert torch.equal(read_site(model, IDS, Site(layer, "resid_in")), states[layer])


@pytest.mark.parametrize("form", FORMS)
def test_the_lens_at_the_last_layer_gives_the_models_own_logits(form):
    layout = layout_of(family_model(form))
    last = read_site(layout.model, IDS, Site(2, "resid_out"))
    with torch.no_grad():
        assert torch.equal(lens_logits(layout, last), logits(layout.model))


@pytest.mark.parametrize("form", FORMS)
def test_an_edit_of_a_block_equals_a_plain_hook(form):
    model = family_model(form)
    shift = torch.randn(32, generator=torch.Generator().manual_seed(2))

    def plain(_, __, output):
        return (output[0] + shift, *output[1:]) if isinstance(output, tuple) else output + shift

    handle = model.get_submodule(f"{layout_of(model).family.layers}.1").register_forward_hook(plain)
    expected = logits(model)
    handle.remove()
    with layout_of(model).edit(Site(1, "resid_out"), lambda value: value + shift):
        assert torch.equal(logits(model), expected)
    assert not torch.allclose(expected, logits(model), atol=1e-3)


@pytest.mark.parametrize("form", NEW)
def test_a_write_at_each_site_is_what_later_readers_see(form):
    layout = layout_of(family_model(form))
    plain = logits(layout.model)
    for at in sites(form):
        before = read_site(layout.model, IDS, Site(1, at))
        hold = torch.randn(before.shape, generator=torch.Generator().manual_seed(3))
        seen = []
        written = hold.clone()
        with (
            layout.edit(Site(1, at), lambda value, written=written: written),
            layout.watch(Site(1, at), lambda value, *_, seen=seen: seen.append(value.clone())),
        ):
            moved = logits(layout.model)
        assert torch.equal(seen[0], hold), at
        assert torch.equal(written, hold), at
        assert not torch.allclose(moved, plain, atol=1e-3), at
    assert torch.equal(logits(layout.model), plain)


@pytest.mark.parametrize("form", [form for form in FORMS if form not in PARALLEL])
def test_a_write_between_attention_and_mlp_reaches_both_branches(form):
    """The block's output must be what the written stream and the MLP's answer to it add up to."""
    layout = layout_of(family_model(form))
    seen = {}
    hold = torch.randn(2, 6, 32, generator=torch.Generator().manual_seed(4))
    with (
        layout.edit(Site(1, "resid_mid"), lambda value: hold),
        layout.watch(Site(1, "mlp_out"), lambda value, *_: seen.update(mlp=value.clone())),
        layout.watch(Site(1, "resid_out"), lambda value, *_: seen.update(out=value.clone())),
    ):
        logits(layout.model)
    family, layer = layout.family, layout.layer(1)
    through = {name: layer.get_submodule(name) if name else torch.nn.Identity() for name in (family.mlp_norm, "")}
    if form in ("opt with norms after", "bloom with normed residual"):
        norm = layer.final_layer_norm if "opt" in form else layer.post_attention_layernorm
        expected = norm(hold + seen["mlp"]) if "opt" in form else norm(hold) + seen["mlp"]
    else:
        expected = hold + layout.factor() * through[family.mlp_norm](seen["mlp"])
    torch.testing.assert_close(seen["out"], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("form", FORMS)
def test_rows_of_a_neuron_are_its_own(form):
    """Without its down row a neuron gives nothing, and with another gate or up row it alone is another."""
    model = make(form)
    layout = layout_of(model)
    before, routes = at_neurons(layout)
    used = [] if routes is None else [e for e in range(4) if bool((routes == e).any())]
    expert = min(used, key=lambda e: int((routes == e).sum()), default=0)
    neuron = 7 if routes is None else int(before[routes == expert].abs().amin(0).argmax())
    out = read_site(model, IDS, Site(1, "mlp_out"))
    with torch.no_grad():
        row = layout.neuron_rows(1)["down"][expert, neuron].clone()
        layout.neuron_rows(1)["down"][expert, neuron] = 0
    lost = out - read_site(model, IDS, Site(1, "mlp_out"))
    share = before[..., neuron, None] * row
    if routes is None:
        torch.testing.assert_close(lost, share, rtol=1e-3, atol=1e-4)
    else:
        touched = (routes == expert).any(-1)
        assert float(lost[~touched].abs().sum()) <= 1e-4
        # A token chooses an expert once at most, and weighs it by one number.
        given = share[routes == expert]
        weight = (lost[touched] * given).sum(-1, keepdim=True) / given.square().sum(-1, keepdim=True)
        torch.testing.assert_close(lost[touched], weight * given, rtol=1e-3, atol=1e-5)
        assert float(weight.min()) >= -1e-3 and 1e-3 < float(weight.max()) <= 1 + 1e-3
    for role in ("gate", "up") if layout.gated else ("up",):
        with torch.no_grad():
            layout.neuron_rows(1)[role][expert, neuron] += 1
        after, again = at_neurons(layout)
        if routes is None:
            changed = (after != before).flatten(0, -2).any(0)
        else:
            assert torch.equal(routes, again)
            changed = (after != before)[routes == expert].any(0)
            assert torch.equal(after[routes != expert], before[routes != expert])
        if not layout.family.inner_norm:
            assert changed.nonzero().flatten().tolist() == [neuron], role
        before = after


def at_neurons(layout: Layout):
    seen = []
    with (
        layout.watch(Site(1, "mlp_inner"), lambda value, _, routes: seen.append((value.clone(), routes))),
        torch.no_grad(),
    ):
        layout.model(input_ids=IDS, use_cache=False)
    return seen[-1]


@pytest.mark.parametrize("form", FORMS)
def test_steered_generation_equals_a_plain_hook_without_a_cache(form):
    model = family_model(form)
    vector = torch.randn(32, generator=torch.Generator().manual_seed(8))
    operation = Operation(Site(1, "resid_out"), "add", vector, strength=2.0)
    with bs.steer(model, operation):
        steered = model.generate(IDS, attention_mask=torch.ones_like(IDS), max_new_tokens=4, do_sample=False)

    def plain(_, __, output):
        moved = (output[0] if isinstance(output, tuple) else output) + 2 * vector
        return (moved, *output[1:]) if isinstance(output, tuple) else moved

    handle = model.get_submodule(f"{layout_of(model).family.layers}.1").register_forward_hook(plain)
    ids = IDS
    with torch.no_grad():
        for _ in range(steered.shape[1] - IDS.shape[1]):
            ids = torch.cat([ids, model(input_ids=ids, use_cache=False).logits[:, -1:].argmax(-1)], dim=1)
    handle.remove()
    ended = (steered[:, 6:] == 2).cumsum(1) - (steered[:, 6:] == 2).long() > 0
    assert torch.equal(ids[:, 6:][~ended], steered[:, 6:][~ended])


def test_places_that_a_family_lacks_are_refused_in_one_line():
    for form in PARALLEL:
        with pytest.raises(SiteError, match="side by side"):
            read_site(family_model(form), IDS, Site(1, "resid_mid"))
    for form, layers in WITHOUT_ATTENTION.items():
        for at in ("attn_heads", "attn_out"):
            for layer in layers:
                with pytest.raises(SiteError, match=rf"layer {layer} .* in the attention's place.*give one of 1$"):
                    read_site(family_model(form), IDS, Site(layer, at))
            assert read_site(family_model(form), IDS, Site(1, at)).isfinite().all()
    with pytest.raises(SiteError, match="activation function of lfm2 is no module.*use mlp_inner"):
        read_site(family_model("lfm2"), IDS, Site(1, "mlp_gate"))


def test_router_scores_written_anew_are_weighed_as_the_family_does():
    forced = torch.tensor([0.0, 3.0, -1.0, 2.999]).expand(2, 6, 4)
    shares = {
        "qwen2_moe": torch.softmax(forced[0, 0], -1)[[1, 3]],
        "gpt_oss": torch.softmax(forced[0, 0, [1, 3]], -1),
        # Both are within the slack of 2 · 0.01, and the second is weighed with the first left out.
        "phimoe": torch.stack([torch.softmax(forced[0, 0, [1, 3]], -1)[0], torch.tensor(1.0)]),
    }
    for form, expected in shares.items():
        if form in LACKING:
            continue
        layout, given = layout_of(family_model(form)), []
        handle = layout.experts(1).register_forward_pre_hook(
            lambda _, args, kwargs, given=given: given.append([*args, *kwargs.values()]), with_kwargs=True
        )
        with layout.edit(Site(1, "router"), lambda value: forced):
            logits(layout.model)
        handle.remove()
        _, routes, weights = given[0]
        assert routes.tolist() == [[1, 3]] * 12, form
        torch.testing.assert_close(weights, expected.expand(12, 2), rtol=1e-5, atol=1e-6)


def test_a_neuron_scaled_in_gpt_oss_scales_its_part():
    """The gate's part and the product are one method there; a write to either must give what is worked out by hand."""
    layout = layout_of(family_model("gpt_oss"))
    gate, inner = (read_site(layout.model, IDS, Site(1, at)) for at in ("mlp_gate", "mlp_inner"))
    with layout.edit(Site(1, "mlp_gate"), lambda value: value * 3):
        assert torch.allclose(read_site(layout.model, IDS, Site(1, "mlp_gate")), gate * 3)
        torch.testing.assert_close(read_site(layout.model, IDS, Site(1, "mlp_inner")), inner * 3, rtol=1e-5, atol=1e-5)
    with layout.edit(Site(1, "mlp_inner"), lambda value: value * 0), layout.edit(Site(1, "mlp_gate"), torch.clone):
        out = read_site(layout.model, IDS, Site(1, "mlp_out"))
    biases = layout.experts(1).down_proj_bias
    low, high = biases.min(0).values, biases.max(0).values
    assert ((out >= low - 1e-5) & (out <= high + 1e-5)).all()


WRONG = {
    "a norm after attention is left out": ("gemma2", {"attn_norm": ""}, "resid_mid"),
    "a norm after the MLP is left out": ("olmo2", {"mlp_norm": ""}, "resid_out"),
    "the norm before the MLP is another": ("glm4", {"mid": "post_self_attn_layernorm"}, "resid_mid"),
    "a factor is left out": ("granite", {"scale": ""}, "resid_mid"),
    "a sequence is taken for side by side": ("llama", {"mid": ""}, "mlp_out does not see attn_out"),
    "side by side is taken for a sequence": ("phi", {"mid": "input_layernorm"}, "resid_mid"),
    "gate and up change places": ("llama", {"gate": "mlp.up_proj", "up": "mlp.gate_proj"}, "mlp_gate"),
    "a norm inside the MLP is left out": ("bitnet", {"inner_norm": ""}, "mlp_inner"),
    "the attention is another module": ("llama", {"attn_out": "self_attn.q_proj"}, "attn_out"),
    "the MLP's residual is inside": ("mpt", {"mlp_out": "ffn"}, "mlp_out"),
    "the cap is left out": ("gemma2 with a low cap", {"softcap": ""}, "logits from the last resid_out"),
    "the logits' factor is left out": ("cohere", {"logits_times": ""}, "logits from the last resid_out"),
    "the logits' divisor is left out": ("granite", {"logits_over": ""}, "logits from the last resid_out"),
    "the last norm is another": ("llama", {"norm": "model.layers.0.input_layernorm"}, "logits from the last resid_out"),
    "the experts' rows alternate": ("mixtral", {"router": "mlp.gate", "shared": "mlp.experts"}, "mlp_out"),
    "the shared expert is left out": ("qwen2_moe", {"shared": ""}, "mlp_out"),
    "another way to choose experts": ("phimoe", {"routing": "softmax"}, "logits while every site is looked at"),
}


@pytest.mark.parametrize("fault", WRONG)
def test_a_wrong_table_is_refused_by_the_identity_that_fails(fault, monkeypatch):
    form, changes, name = WRONG[fault]
    if form in LACKING:
        pytest.skip(f"the routers of transformers {transformers.__version__} do not show their scores")
    kind = FORMS[form][0]
    monkeypatch.setitem(families_module.FAMILIES, kind, replace(FAMILIES[kind], **changes))
    with pytest.raises(SiteError, match=f"does not fit: .*{name}.* fails.* by [0-9.e+-]+") as caught:
        bs.check_family(family_model(form))
    assert "\n" not in str(caught.value)


@pytest.fixture
def forgotten():
    """What a test adds to the tables is gone after it."""
    before = dict(FAMILIES)
    yield
    families_module.ADDED.clear()
    FAMILIES.clear()
    FAMILIES.update(before)


def unknown(form: str, kind: str = "newcomer"):
    """A model of a family's form under a model type of its own."""
    model = make(form)
    model.config.model_type = kind
    return model


@pytest.mark.usefixtures("forgotten")
def test_a_family_is_added_by_likeness_and_changes():
    model = unknown("granite")
    with pytest.raises(SiteError, match=r"'newcomer' has no table.*bs\.add_family\('newcomer', '\w+'\).*docs/families"):
        layout_of(model)
    table = bs.add_family("newcomer", "llama", scale="residual_multiplier", logits_over="logits_scaling")
    assert table == FAMILIES["granite"]
    assert layout_of(model).n_layers == 3
    assert torch.equal(
        read_site(model, IDS, Site(1, "mlp_gate")), read_site(family_model("granite"), IDS, Site(1, "mlp_gate"))
    )


@pytest.mark.usefixtures("forgotten")
def test_a_wrong_added_family_is_refused_on_its_first_model():
    bs.add_family("newcomer", "llama")
    model = unknown("granite")
    for _ in range(2):
        with pytest.raises(SiteError, match="'newcomer' does not fit: .*resid_mid = resid_in"):
            layout_of(model)
    bs.add_family("newcomer", FAMILIES["granite"])
    assert layout_of(model).family == FAMILIES["granite"]


@pytest.mark.usefixtures("forgotten")
def test_bad_additions_are_one_line_each():
    with pytest.raises(SiteError, match="'llama' has a table already"):
        bs.add_family("llama", "gpt2")
    with pytest.raises(SiteError, match="like='lama' has no table; expected a Family, or one of apertus"):
        bs.add_family("newcomer", "lama")
    with pytest.raises(SiteError, match="middle='x'.*expected fields of Family"):
        bs.add_family("newcomer", "llama", middle="x")
    with pytest.raises(SiteError, match="mid=None"):
        bs.add_family("newcomer", "llama", mid=None)
    assert "newcomer" not in FAMILIES


@pytest.mark.usefixtures("forgotten")
def test_an_added_family_opens_from_its_folder(tmp_path, tokenizer):
    make("granite").save_pretrained(tmp_path / "m")
    tokenizer.save_pretrained(tmp_path / "m")
    del FAMILIES["granite"]
    with pytest.raises(SiteError, match=r"'granite', whose modules are in no table; .*bs\.add_family\('granite', "):
        bs.open_model(str(tmp_path / "m"), device="cpu")
    bs.add_family("granite", "llama", scale="residual_multiplier", logits_over="logits_scaling")
    model, _ = bs.open_model(str(tmp_path / "m"), device="cpu")
    assert layout_of(model).n_layers == 3


def test_nan_holds_no_identity():
    assert not Identity("x", 0, float("nan"), 1.0).holds


@pytest.mark.parametrize("form", ["qwen3_next", "gpt_oss", "lfm2", "phimoe", "granite", "cohere2"])
def test_neurons_of_new_families_are_observed_selected_and_ablated(form, tokenizer):
    at = "mlp_inner" if form == "lfm2" else "mlp_gate"
    model = family_model(form)
    texts = {"en": ["the cat sat on the mat. " * 6] * 4, "fi": ["kissa istui matolla taas. " * 6] * 4}
    observed = bs.observe(model, tokenizer, texts, sites=[at], shards=2)
    counts, width = observed[at].active, layout_of(model).width("mlp_gate")
    assert counts.shape == (3, width, 2) and 0 < int(counts.sum()) < width * 3 * int(observed.token_counts.sum())
    seen = []
    ids = torch.tensor([tokenizer(texts["fi"][0]).input_ids])
    for layer in range(3):
        with layout_of(model).watch(Site(layer, at), lambda value, sign, routes: seen.append((sign > 0, routes))):
            model(input_ids=ids)
    # Four equal documents, whose BOS is not counted.
    by_hand = sum(int(active[:, 1:].sum()) for active, _ in seen)
    assert int(counts[:, :, observed.index("fi")].sum()) == 4 * by_hand
    found = bs.select_top_rate(observed, top_rate=0.1, min_count=1, at=at)
    assert all(found.sizes.values())
    table = bs.ablation_matrix(
        model, tokenizer, found, texts, draws=2, resamples=20, controls=("layer_matched",), same_text=True
    )
    assert len(table.languages) == 2


@pytest.mark.parametrize(("form", "why"), [("bitnet", "norms them"), ("gpt_oss", "clamped"), ("lfm2", "is no module")])
def test_neurons_that_do_not_add_up_are_not_trained_one_by_one(form, why):
    with pytest.raises(PrerequisiteError, match=f"neurons of {form} cannot be trained one by one: .*{why}"):
        choose_form(layout_of(family_model(form)), "auto")
    assert choose_form(layout_of(family_model("granite")), "auto") == "fused"


def test_heads_of_a_model_with_layers_without_attention_are_refused_by_layer(tokenizer):
    with pytest.raises(SiteError, match=r"'0.attn_heads': layer 0 .* linear_attn in the attention's place"):
        record_heads(family_model("qwen3_next"), tokenizer, {"en": ["a cat"], "fi": ["kissa"]})
