"""Counts and moments against brute force, and under every way of cutting the work."""

import inspect
import json

import numpy as np
import pytest
import torch
from babelscope_kernels.active_counts.dispatch import active_counts
from conftest import CONFIGS, tiny_model, tiny_tokenizer

from babelscope import Site, layout_of, mean_direction, observe, read_site, select_lape
from babelscope.cli.observing import run_observe
from babelscope.errors import ArtifactError, MeasurementError, PrerequisiteError, SiteError
from babelscope.evaluation import bits_per_byte
from babelscope.recording import plan_observation
from babelscope.recording.site_sums import Workspace, dense_addend, document_counts
from babelscope.sites import USUAL_SITES

TEXTS = {
    "en": ["the cat sat on the mat", "a dog", "rain again today", "x", "we walk home"],
    "fi": ["kissa istui matolla", "koira haukkuu pihalla", "sataa", "mennään kotiin nyt"],
}
SITES = ["mlp_gate", "resid_out"]


def brute_force(model, tokenizer, site, texts):
    """One document at a time, in numpy float64: active, sum, sumsq, norm, tokens."""
    active = total = square = norm = tokens = 0
    layout = layout_of(model)
    for text in texts:
        ids = torch.tensor([[1, *tokenizer(text, add_special_tokens=False)["input_ids"]]])
        met = []
        before_act = layout.layer(site.layer).get_submodule(layout.family.gate or layout.family.up)
        hook = before_act.register_forward_hook(lambda _, __, out, met=met: met.append(out))
        value = read_site(model, ids, site)[0, 1:].double().numpy()
        hook.remove()
        # Where gate and up are one projection, the gate comes first.
        sign = met[0].view(ids.shape[1], -1)[1:, : layout.d_neuron].double().numpy() if site.at == "mlp_gate" else value
        active = active + (sign > 0).sum(0)
        total, square = total + value.sum(0), square + (value**2).sum(0)
        norm, tokens = norm + np.sqrt((value**2).sum(1)).sum(), tokens + len(value)
    return active, total, square, norm, tokens


@pytest.mark.parametrize("family", [name for name in CONFIGS if name not in ("mixtral", "qwen3_moe", "olmoe")])
@pytest.mark.parametrize("at", ["mlp_gate", "mlp_inner", "resid_out"])
def test_counts_and_moments_equal_brute_force(family, at, tokenizer):
    model = tiny_model(family)
    record = observe(model, tokenizer, TEXTS, sites=[at])[at]
    for k, texts in enumerate(TEXTS.values()):
        for layer in range(3):
            active, total, square, norm, _ = brute_force(model, tokenizer, Site(layer, at), texts)
            assert np.abs(record.active[layer, :, k].numpy() - active).sum() <= 1
            np.testing.assert_allclose(record.sum[layer, :, k], total, rtol=1e-4, atol=1e-3)
            np.testing.assert_allclose(record.sumsq[layer, :, k], square, rtol=1e-4, atol=1e-3)
            np.testing.assert_allclose(record.norm[layer, k], norm, rtol=1e-5)


def test_tokens_are_those_of_the_text(tokenizer):
    observation = observe(tiny_model("llama"), tokenizer, TEXTS)
    want = {tag: sum(len(text.encode()) for text in texts) for tag, texts in TEXTS.items()}
    assert observation.tokens == want
    assert observation.documents.tolist() == [5, 4]


@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe", "olmoe"])
def test_experts_count_the_tokens_routed_to_them(family, tokenizer):
    model = tiny_model(family)
    layout = layout_of(model)
    record = observe(model, tokenizer, TEXTS, sites=["mlp_gate"])["mlp_gate"]
    active = torch.zeros(layout.n_experts, layout.d_neuron)
    routed = torch.zeros(layout.n_experts, dtype=torch.int64)
    for text in TEXTS["fi"]:
        ids = torch.tensor([[1, *tokenizer(text, add_special_tokens=False)["input_ids"]]])
        seen = []
        with layout.watch(Site(1, "mlp_gate"), lambda value, sign, routes, seen=seen: seen.append((sign, routes))):
            model(input_ids=ids)
        for sign, routes in zip(seen[0][0][0, 1:], seen[0][1][0, 1:], strict=True):
            for row, expert in zip(sign, routes, strict=True):
                active[expert] += row > 0
                routed[expert] += 1
    assert record.routed[1, :, 1].tolist() == routed.tolist()
    assert (record.active[1, :, 1] - active.flatten()).abs().sum() <= 1


def same_counts(a, b):
    return all(torch.equal(a[at].active, b[at].active) for at in a.records) and a.tokens == b.tokens


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "gpt2"])
def test_batched_is_one_by_one_in_float64(family, tokenizer):
    model = tiny_model(family, dtype=torch.float64)
    single, batched = (observe(model, tokenizer, TEXTS, sites=SITES, batch_size=size) for size in (1, 4))
    assert same_counts(single, batched)
    for at in SITES:
        torch.testing.assert_close(single[at].sum, batched[at].sum, rtol=1e-10, atol=1e-10)


def test_float32_batches_differ_by_rounding_at_most(model, tokenizer):
    single, batched = (observe(model, tokenizer, TEXTS, sites=SITES, batch_size=size) for size in (1, "auto"))
    for at in SITES:
        flips = (single[at].active - batched[at].active).abs().sum()
        assert flips <= 1e-6 * sum(single.tokens.values()) * single[at].active[..., 0].numel() + 1


def test_shards_add_up_and_parts_make_the_whole(tokenizer):
    model = tiny_model("llama", dtype=torch.float64)
    whole = observe(model, tokenizer, TEXTS, sites=SITES, shards=8, tokens_per_language=30)
    assert whole.tokens == {"en": 30, "fi": 30}
    assert torch.equal(whole["mlp_gate"].shard_active.sum(0), whole.active)
    assert torch.equal(whole.shard_tokens.sum(0), whole.token_counts)
    parts = [
        observe(model, tokenizer, TEXTS, sites=SITES, shards=8, tokens_per_language=30, part=(i, 2)) for i in (0, 1)
    ]
    merged = parts[0] + parts[1]
    assert same_counts(merged, whole)
    assert torch.equal(merged["mlp_gate"].shard_active, whole["mlp_gate"].shard_active)
    torch.testing.assert_close(merged["resid_out"].sum, whole["resid_out"].sum, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("stop_after", [1, 3])
def test_a_resumed_pass_is_the_uninterrupted_one_bit_for_bit(tmp_path, tokenizer, stop_after):
    model = tiny_model("llama")
    whole = observe(model, tokenizer, TEXTS, sites=SITES, batch_size=2)
    asked = iter(range(100))
    with pytest.raises(KeyboardInterrupt):
        observe(
            model,
            tokenizer,
            TEXTS,
            sites=SITES,
            batch_size=2,
            checkpoint=tmp_path,
            stop=lambda: next(asked) == stop_after,
        )
    assert json.loads((tmp_path / "state.json").read_text())["content"]["done"] == stop_after
    resumed = observe(model, tokenizer, TEXTS, sites=SITES, batch_size=2, checkpoint=tmp_path)
    assert same_counts(whole, resumed)
    for at in SITES:
        assert torch.equal(whole[at].sum, resumed[at].sum) and torch.equal(whole[at].sumsq, resumed[at].sumsq)
        assert torch.equal(whole[at].norm, resumed[at].norm)


def test_a_checkpoint_of_another_pass_is_refused(tmp_path, tokenizer):
    model = tiny_model("llama")
    with pytest.raises(KeyboardInterrupt):
        observe(model, tokenizer, TEXTS, batch_size=1, checkpoint=tmp_path, stop=lambda: True)
    with pytest.raises(ArtifactError, match="another run"):
        observe(model, tokenizer, {**TEXTS, "fi": ["eri"]}, batch_size=1, checkpoint=tmp_path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_stops_the_run_with_the_site(tokenizer, value):
    model = tiny_model("llama")
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[0, 0] = value
    with pytest.raises(MeasurementError, match=r"'1\.mlp_inner' gave NaN or infinity"):
        observe(model, tokenizer, TEXTS, sites=["mlp_gate", "mlp_inner"])


def test_the_model_is_as_before(model, tokenizer, ids):
    model.train()
    names = [name for name, _ in model.named_modules()]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    observe(model, tokenizer, TEXTS, sites=SITES)
    assert model.training and names == [name for name, _ in model.named_modules()]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_counts_above_two_to_the_thirty_third_stay_exact(tokenizer):
    observation = observe(tiny_model("llama"), tokenizer, TEXTS)
    observation.active[0, 0, 0] = 2**33
    assert (observation.active + observation.active)[0, 0, 0] == 2**34


def test_a_tokenizer_without_bos_counts_every_token():
    observation = observe(tiny_model("llama"), tiny_tokenizer(bos=False), {"en": ["abc"]})
    assert observation.tokens == {"en": 3}


def test_truncation_is_reported(tokenizer, caplog):
    observation = observe(tiny_model("llama"), tokenizer, {"en": ["abcdefgh", "ab"]}, max_length=4)
    assert observation.truncated.tolist() == [5] and "5 tokens past max_length 4" in caplog.text


def test_a_shortfall_is_reported_and_not_padded_out(tokenizer, caplog):
    observation = observe(tiny_model("llama"), tokenizer, TEXTS, tokens_per_language=60)
    assert observation.tokens == {"en": 56, "fi": 60}
    assert "fewer than 60 tokens: en 56" in caplog.text


def test_memory_kept_does_not_grow_with_the_text(tokenizer):
    model = tiny_model("llama")
    sizes = []
    for times in (1, 50):
        texts = {tag: lines * times for tag, lines in TEXTS.items()}
        record = observe(model, tokenizer, texts, sites=SITES, tokens_per_language=None)
        sizes.append(sum(r.active.nbytes + r.sum.nbytes + r.shard_active.nbytes for r in record.records.values()))
    assert sizes[0] == sizes[1]


def test_the_plan_says_how_large_the_result_is(tmp_path, tokenizer):
    model = tiny_model("llama")
    plan = plan_observation(model, TEXTS, sites=SITES, tokens_per_language=30, shards=32)
    saved = observe(model, tokenizer, TEXTS, sites=SITES, tokens_per_language=30, shards=32).save(tmp_path / "obs")
    assert plan.tokens == 60
    # Text that is shorter than the limit: what is there is expected, and what the bar counts up to.
    generous = plan_observation(model, TEXTS, sites=SITES, tokens_per_language=10_000, tokenizer=tokenizer)
    whole = sum(observe(model, tokenizer, TEXTS, sites=["0.mlp_gate"], tokens_per_language=10_000).tokens.values())
    assert generous.tokens == pytest.approx(whole, rel=0.05) and whole < 1_000
    assert 1 <= (saved / "tensors.safetensors").stat().st_size / plan.result_bytes < 1.05


@pytest.mark.parametrize("sites", [[], ["nothing"], ["9.mlp_gate"], ["router"]])
def test_sites_the_model_lacks_are_refused(tokenizer, sites):
    with pytest.raises(SiteError):
        observe(tiny_model("llama"), tokenizer, TEXTS, sites=sites)


def test_counting_by_label_as_on_a_gpu_gives_the_counts_by_document():
    generator = torch.Generator().manual_seed(0)
    value = torch.randn(5, 9, 7, generator=generator)
    counted = torch.rand(5, 9, generator=generator) < 0.7
    mine = document_counts(value, counted, Workspace.empty(torch.device("cpu")))
    labels = torch.where(counted, torch.arange(5, dtype=torch.int32)[:, None], -1)
    assert torch.equal(mine.long(), active_counts(value, labels, 5))
    assert torch.equal(mine.long(), ((value > 0) & counted[..., None]).sum(dim=1))


def test_sums_in_blocks_are_those_of_the_whole(monkeypatch):
    value = torch.randn(6, 11, 13, generator=torch.Generator().manual_seed(0))
    counted = torch.ones(6, 11, dtype=torch.bool)
    counted[:, 0] = False
    whole = value.double()[counted]
    for block in (1, 40, 1 << 18):
        monkeypatch.setattr("babelscope.recording.site_sums.BLOCK", block)
        found = dense_addend(value, value, counted, Workspace.empty(value.device))
        torch.testing.assert_close(found.sum, whole.sum(dim=0), rtol=1e-13, atol=1e-13)
        torch.testing.assert_close(found.sumsq, whole.square().sum(dim=0), rtol=1e-13, atol=1e-13)
        torch.testing.assert_close(found.norm, whole.norm(dim=1).sum(), rtol=1e-13, atol=1e-13)


def test_control_tokens_spelt_in_the_text_are_in_the_card_and_add_up(tokenizer, tmp_path, caplog):
    model = tiny_model("llama")
    texts = {"en": ["a</s>b <s>", "plain"], "fi": ["ei mitään"], "de": ["<pad>"]}
    observation = observe(model, tokenizer, texts, sites=["mlp_gate"])
    assert observation.settings["controls"] == {"en": 2, "de": 1} and observation.tokens["en"] == 15
    assert "control tokens spelt in the text stay text: en 2, de 1" in caplog.text
    observation.save(tmp_path / "o")
    assert "Control tokens spelt in the text, read as text: en 2, de 1." in (tmp_path / "o" / "README.md").read_text()
    other = observe(model, tokenizer, {**texts, "fi": ["<s>"]}, sites=["mlp_gate"])
    assert (observation + other).settings["controls"] == {"en": 4, "fi": 1, "de": 2}


def test_a_document_without_a_token_is_passed_over_where_there_is_no_bos():
    tokenizer, model = tiny_tokenizer(bos=False), tiny_model("llama")
    texts = {"en": ["", "a plain line"], "fi": ["rivi", ""]}
    assert observe(model, tokenizer, texts, sites=["mlp_gate"]).tokens == {"en": 12, "fi": 4}
    scores = bits_per_byte(model, tokenizer, texts)
    assert scores == bits_per_byte(model, tokenizer, {"en": ["a plain line"], "fi": ["rivi"]})


def test_weights_without_numbers_are_refused_in_one_line(tokenizer):
    with pytest.raises(PrerequisiteError, match="on the meta device, which has no numbers") as caught:
        observe(tiny_model("llama").to("meta"), tokenizer, TEXTS, sites=SITES, tokens_per_language=30)
    assert "\n" not in str(caught.value)


def test_python_and_the_shell_read_the_same_sites_and_each_job_has_its_own():
    """What `observe` gives unless told is enough to select neurons, to take levels, and for a direction."""
    for function in (observe, plan_observation, run_observe):
        assert inspect.signature(function).parameters["sites"].default == USUAL_SITES
    texts = {"en": ["the cat", "a dog"], "fi": ["kissa", "koira"]}
    observation = observe(tiny_model("llama"), tiny_tokenizer(), texts)
    assert tuple(observation.records) == USUAL_SITES
    assert len(select_lape(observation, top_rate=0.5, min_count=1).languages) == 2
    assert mean_direction(observation, target="fi", layer=1).site == Site(1, "resid_out")
    assert observation["mlp_inner"].sum.shape == observation["mlp_gate"].sum.shape
