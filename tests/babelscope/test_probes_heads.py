"""Head statistics against eager attention, selectivity with planted heads, and ablation by gates."""

import math

import numpy as np
import pytest
import torch
from conftest import tiny_model, tiny_tokenizer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from babelscope import Site, load_corpus
from babelscope.corpus import batch_documents, tokenize_documents
from babelscope.errors import LanguageError, SelectionError, SiteError
from babelscope.evaluation import HeldOut, document_losses
from babelscope.languages import Language
from babelscope.models import layout_of, run_pass
from babelscope.probes.units.head_ablation import HeadAblation, HeadHarm, ablate_heads, heads_off, matched_heads
from babelscope.probes.units.heads import MEASURES, head_selectivity, record_heads


@pytest.fixture
def texts():
    return load_corpus("reference", ["en", "fi", "ru"], split="valid").head(30)


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma2", "gpt2", "mixtral", "opt", "gpt_neox", "phi3"])
def test_measures_equal_those_of_eager_patterns(family, texts):
    model, tokenizer = tiny_model(family), tiny_tokenizer()
    layout, tags = layout_of(model), ["en", "fi"]
    record = record_heads(model, tokenizer, texts.only(tags).head(6), max_length=40)
    model.set_attn_implementation("eager")
    for k, tag in enumerate(tags):
        totals, rows = dict.fromkeys(MEASURES, 0.0), 0
        for document in tokenize_documents(tokenizer, texts[tag][:6], k, max_length=40):
            ids, seen = torch.tensor([document.tokens]), {}
            with (
                layout.watch(Site(1, "attn_heads"), lambda v, s, r, seen=seen: seen.setdefault("z", v)),
                torch.no_grad(),
            ):
                pattern = model(ids, output_attentions=True, use_cache=False).attentions[1][0].double()
            t = len(document.tokens)
            entropy = torch.special.entr(pattern).sum(dim=-1)[:, 1:]
            projection = layout.layer(1).get_submodule(layout.family.heads_out)
            width = seen["z"].shape[-1]
            wide = torch.zeros(*seen["z"].shape[1:3], seen["z"].shape[2] * width)
            for head in range(layout.n_heads):
                wide[:, head, head * width : (head + 1) * width] = seen["z"][0, :, head]
            with torch.no_grad():
                added = projection(wide) - projection(torch.zeros_like(wide))
            found = {
                "written": added.norm(dim=-1)[1:].double().T,
                "entropy_nats": entropy,
                "evenness": entropy / reach(model, t),
                "sink": sink(pattern, model),
                "previous": pattern.diagonal(-1, -2, -1),
            }
            totals = {name: totals[name] + found[name].sum(dim=1) for name in MEASURES}
            rows += t - 1
        for name in MEASURES:
            assert torch.allclose(record.mean(name)[k, 1], totals[name] / rows, rtol=1e-4, atol=1e-5), name


def window_of(model):
    kinds = getattr(model.config, "layer_types", None)
    sliding = kinds is None or kinds[1] == "sliding_attention"
    return getattr(model.config, "sliding_window", None) if sliding else None


def reach(model, t):
    seen = torch.arange(2, t + 1)
    window = window_of(model)
    return (seen if window is None else seen.clamp(max=window)).double().log()


def sink(pattern, model):
    return pattern[:, 1:, 0]


def test_the_models_own_attention_comes_back(texts, ids):
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    before = model(ids).logits
    name = model.config._attn_implementation
    record_heads(model, tokenizer, texts.head(3))
    assert model.config._attn_implementation == name and torch.equal(model(ids).logits, before)
    assert "babelscope" not in ALL_ATTENTION_FUNCTIONS.valid_keys()


def plant(model, tokenizer):
    """Head 2 of layer 0 carries only tokens that are no ASCII letter; the other heads carry what is common to all."""
    layout = layout_of(model)
    low = torch.tensor(tokenizer("".join(map(chr, range(128))))["input_ids"])
    high = ~torch.isin(torch.arange(300), low)
    attention = layout.layer(0).self_attn
    with torch.no_grad():
        embed = model.get_input_embeddings().weight
        embed[:, 0], embed[:, 1] = torch.where(high, 20.0, 0.0), 20.0
        attention.v_proj.weight.zero_()
        attention.v_proj.weight[:8, 1], attention.v_proj.weight[8:, 0] = 1.0, 1.0
        attention.o_proj.weight[:, 24:] = 0
    return model


def test_a_planted_head_is_selective_for_its_language():
    tokenizer, texts = tiny_tokenizer(), load_corpus("reference", ["en", "id", "ru"], split="valid").head(30)
    record = record_heads(plant(tiny_model("llama"), tokenizer), tokenizer, texts)
    found = head_selectivity(record, draws=99)
    assert found.share[2, 0, 2] > 0.9 and found.entropy_nats[0, 2] < 0.5
    assert found.q[0, 2] <= 0.05 and found.null[0, 2] > 0.9
    assert (found.share.sum(dim=0)[0, :3] - 1).abs().max() < 1e-12
    assert found.share[:, 0, 3].isnan().all() and found.p[0, 3].isnan()
    assert (0, 2) in found.heads(1)[Language("ru")]
    row = next(row for row in found.rows() if row.site == "0.attn_heads" and "head 2" in row.claim)
    assert row.language == "ru" and row.null > row.estimate


def test_off_sink_activity_is_one_minus_the_sink(texts):
    record = record_heads(tiny_model("qwen3"), tiny_tokenizer(), texts)
    value = 1 - record.mean("sink")
    found = head_selectivity(record, measure="off_sink", draws=9)
    assert torch.allclose(found.share, value / value.sum(dim=0))
    assert found.entropy_nats.max() <= math.log(3) + 1e-12


def test_a_head_that_looks_at_the_sink_alone_is_never_below_no_entropy(texts):
    record = record_heads(tiny_model("qwen3"), tiny_tokenizer(), texts)
    sink = record.units("sink")
    # float32 rows of a softmax add up to 1 give or take 1e-7.
    above = 1 + 1e-8 * torch.tensor([[1.0], [-1.0], [2.0]], dtype=torch.float64)
    record.sums.by_shard.total[:, :, sink] = record.sums.by_shard.tokens[..., None] * above
    found = head_selectivity(record, measure="off_sink", draws=9)
    assert found.share.min() >= 0 and found.entropy_nats.min() >= 0


def test_rows_hold_an_interval_around_the_mean_and_no_p_for_the_base():
    texts = load_corpus("reference", ["en", "fi", "ru"], split="valid")
    record = record_heads(tiny_model("llama"), tiny_tokenizer(), texts, tokens_per_language=None)
    rows = record.rows("sink", draws=19, resamples=50)
    assert len(rows) == 3 * 3 * 4
    assert all(row.low - 1e-9 <= row.estimate <= row.high + 1e-9 for row in rows)
    assert all(math.isnan(row.p) == (row.language == "en") for row in rows)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_head_switched_off_equals_zeroed_columns_of_the_output_projection(family, texts):
    model, tokenizer = tiny_model(family), tiny_tokenizer()
    layout = layout_of(model)
    documents = tokenize_documents(tokenizer, texts["en"][:4], 0, max_length=30)
    batch = batch_documents(documents, batch_tokens=4096, pad=0)[0]

    def stream():
        seen = []
        with layout.watch(Site(2, "resid_out"), lambda value, sign, routes: seen.append(value.clone())):
            run_pass(layout, batch.input_ids, batch.attention_mask)
        return seen[0]

    with heads_off(layout, [(1, 2)]):
        gated = stream()
    weight = layout.layer(1).get_submodule(layout.family.heads_out).weight
    columns = weight[16:24] if family == "gpt2" else weight[:, 16:24]
    with torch.no_grad():
        columns.zero_()
    assert torch.allclose(gated, stream(), atol=1e-5)


def test_switching_off_nothing_or_to_its_own_value_changes_little(texts):
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    layout = layout_of(model)
    held = HeldOut.prepare(tokenizer, texts.only(["en"]).head(5))[0]
    before = document_losses(layout, held).nats
    with heads_off(layout, []):
        assert torch.equal(document_losses(layout, held).nats, before)
    with heads_off(layout, [(0, 1)]):
        assert not torch.equal(document_losses(layout, held).nats, before)
    assert torch.equal(document_losses(layout, held).nats, before)


def test_ablation_reports_every_text_and_the_controls(texts):
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    heads = {Language("en"): ((0, 1),), Language("ru"): ((1, 0), (2, 3))}
    found = ablate_heads(model, tokenizer, heads, texts.head(6), resamples=100, max_tokens=None)
    held = HeldOut.prepare(tokenizer, texts.head(6))
    base = document_losses(model, held[1]).nats
    with heads_off(layout_of(model), heads[Language("ru")]):
        delta = document_losses(model, held[1]).nats - base
    en, ru = found.languages
    assert ru.harm["fi"] == pytest.approx(float(delta.sum() / base.sum()))
    assert (len(en.drawn), len(ru.drawn)) == (3, 9)
    assert en.low <= en.harm["en"] <= en.high
    assert ru.specificity == pytest.approx(ru.harm["ru"] - max(ru.harm["en"], ru.harm["fi"]))
    assert 0 <= found.worst <= 2 and 0 < found.worst_p <= 1
    assert len(found.rows()) == 5 and found.rows()[2].n == len(base)
    unlike = {"en": texts["en"][:2], "ru": texts["ru"][:6]}
    few, _, many, *_ = ablate_heads(model, tokenizer, heads, unlike, resamples=9, draws=1, max_tokens=None).rows()
    assert (few.language, few.n, many.language, many.n) == ("en", 2, "ru", 6)


def test_the_chance_of_as_many_worst_heads_is_exact():
    def one(tag, own, drawn):
        return HeadHarm(Language(tag), ((0, 0),), {Language(tag): own}, 0.0, 0.0, 0.0, 0.0, 0.0, drawn, 0.5)

    rows = (one("en", 2.0, (1.0,)), one("fi", 2.0, (1.0, 1.5, 0.5)), one("ru", 0.0, (1.0,)))
    found = HeadAblation(rows, {}, "zero", 1, 0)
    # Coins of 1/2, 1/4, 1/2: P(2 or 3 heads) = 3/16 + 1/16 + 1/16 + 1/16 by hand.
    assert found.worst == 2 and found.worst_p == pytest.approx(6 / 16)


def test_what_can_not_be_probed_is_refused(texts):
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    with pytest.raises(SiteError, match="bloom"):
        record_heads(tiny_model("bloom"), tokenizer, texts)
    with pytest.raises(LanguageError, match="one language"):
        head_selectivity(record_heads(model, tokenizer, texts.only(["fi"])))
    with pytest.raises(SelectionError, match="head"), heads_off(layout_of(model), [(0, 4)]):
        pass
    with pytest.raises(LanguageError, match="text of"):
        ablate_heads(model, tokenizer, {Language("zh"): ((0, 0),)}, texts)
    with pytest.raises(SelectionError, match="no other heads"):
        matched_heads(layout_of(model), [(0, 0), (0, 1), (0, 2)], 5, np.random.default_rng(0))
