"""Neurons of attention by the effect of removing them: against weights set to zero, and the formula of the paper."""

import math

import numpy as np
import pytest
import torch
from conftest import tiny_model, tiny_tokenizer
from family_configs import make

from babelscope import load_corpus
from babelscope.corpus import batch_documents, tokenize_documents
from babelscope.errors import LanguageError, SelectionError, SiteError
from babelscope.figures.removal_map import RemovalCell, removal_map
from babelscope.models import layout_of, run_pass
from babelscope.models.attention import AttentionInputs, attention_by
from babelscope.probes.units.attention_removal import (
    STRUCTURES,
    attend_plainly,
    attention_effects,
    output_rows,
    structure_widths,
)
from babelscope.probes.units.structure_ablation import ablate_structures, random_units, structures_off
from babelscope.probes.units.structure_removal import key_heads, structure_votes
from babelscope.sites import Site


@pytest.fixture(scope="module")
def texts():
    return load_corpus("reference", ["en", "fi", "ru"], split="valid").head(12)


def one_batch(texts):
    documents = tokenize_documents(tiny_tokenizer(), texts["fi"][:3], 0, max_length=20)
    return batch_documents(documents, batch_tokens=4096, pad=0)[0]


def attn_out(layout, batch, layer):
    seen = []
    with layout.watch(Site(layer, "attn_out"), lambda value, sign, routes: seen.append(value.clone())):
        run_pass(layout, batch.input_ids, batch.attention_mask)
    return seen[0].double()


def effects_of(layout, batch, layer):
    found = {}

    def attend(inputs):
        if inputs.layer == layer:
            found["effects"] = attention_effects(inputs, batch.counted, output_rows(layout, layer))
        return attend_plainly(inputs)

    with torch.no_grad(), attention_by(layout.model, attend):
        run_pass(layout, batch.input_ids, batch.attention_mask)
    return found["effects"]


def root_mean_square(change, counted):
    squares = change.square().sum(dim=-1) * counted
    return (squares.sum(dim=1) / counted.sum(dim=1)).sqrt()


def test_removed_rows_of_a_model_without_rotary_positions_equal_brute_force(texts):
    """OPT's queries, keys and values are rows of its projections: weight and bias of one row at zero, nothing else."""
    model = tiny_model("opt", dtype=torch.float64)
    layout, batch = layout_of(model), one_batch(texts)
    effects, layer = effects_of(layout, batch, 1), model.model.decoder.layers[1].self_attn
    whole = attn_out(layout, batch, 1)
    for name, projection in (("query", layer.q_proj), ("key", layer.k_proj), ("value", layer.v_proj)):
        for unit in (0, 5, projection.weight.shape[0] - 1):
            with torch.no_grad():
                before = projection.weight[unit].clone(), projection.bias[unit].clone()
                projection.weight[unit], projection.bias[unit] = 0, 0
                without = attn_out(layout, batch, 1)
                projection.weight[unit], projection.bias[unit] = before
            brute = root_mean_square(whole - without, batch.counted)
            assert brute.min() > 0 and torch.allclose(effects.exact[name][:, unit], brute, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_removed_coordinates_equal_attention_computed_without_them(family, texts):
    """Grouped heads, rotary positions, windows and soft caps: the model's attention with the coordinate at zero."""
    model = tiny_model(family, dtype=torch.float64)
    layout, batch = layout_of(model), one_batch(texts)
    effects, whole = effects_of(layout, batch, 1), attn_out(layout, batch, 1)
    widths = structure_widths(layout, key_heads(layout))
    for name in ("query", "key", "value"):
        for unit in (0, widths[name] - 1):
            mask = torch.zeros(layout.n_layers, widths[name], dtype=torch.bool)
            mask[1, unit] = True
            with torch.no_grad(), structures_off(layout, {name: mask}):
                without = attn_out(layout, batch, 1)
            brute = root_mean_square(whole - without, batch.counted)
            assert torch.allclose(effects.exact[name][:, unit], brute, rtol=1e-6, atol=1e-12)


def test_the_formula_of_attention_is_the_models_own(texts):
    for family in ("llama", "gemma2", "opt"):  # Gemma 2 takes its softmax in float32, whatever the model is
        layout, batch = layout_of(tiny_model(family, dtype=torch.float64)), one_batch(texts)
        plain = attn_out(layout, batch, 2)
        with torch.no_grad(), attention_by(layout.model, attend_plainly):
            assert torch.allclose(attn_out(layout, batch, 2)[batch.counted], plain[batch.counted], atol=1e-6)


def test_the_parallel_form_is_that_of_the_paper_by_hand():
    """Two tokens, one head of two coordinates: A = s·QKᵀ with s = 1/√2, and what the softmax loses without each."""
    query = torch.tensor([[[[1.0, 0.0], [2.0, 1.0]]]], dtype=torch.float64)
    key = torch.tensor([[[[1.0, 1.0], [0.0, 3.0]]]], dtype=torch.float64)
    inputs = AttentionInputs(0, query, key, key, None, None, None)
    effects = attention_effects(inputs, torch.ones(1, 2, dtype=torch.bool), torch.eye(2, dtype=torch.float64)[None])

    def first_weight(a, b):
        return 1 / (1 + math.exp((b - a) / math.sqrt(2)))

    whole = first_weight(3, 3)
    for unit, (a, b) in enumerate(((1, 3), (2, 0))):
        change = first_weight(a, b) - whole
        assert effects.parallel["query"][0, unit].item() == pytest.approx(math.sqrt(2 * change**2 / 2))
        moved = change * (key[0, 0, 0] - key[0, 0, 1])
        assert effects.exact["query"][0, unit].item() == pytest.approx(float(moved.norm()) / math.sqrt(2))
    assert torch.equal(effects.parallel["query"], effects.parallel["key"])


def test_a_planted_value_coordinate_is_the_languages_own():
    """A direction that Russian text alone has is read by one value coordinate, whose output is large."""
    texts = load_corpus("reference", ["en", "id", "ru"], split="valid").head(12)
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    low = torch.tensor(tokenizer("".join(map(chr, range(128))))["input_ids"])
    attention = model.model.layers[0].self_attn
    with torch.no_grad():
        model.get_input_embeddings().weight[:, 0] = torch.where(torch.isin(torch.arange(300), low), 0.0, 30.0)
        attention.v_proj.weight[3] = 0
        attention.v_proj.weight[3, 0] = 30.0
    votes = structure_votes(model, tokenizer, texts, top_rate=0.1, max_length=24)
    specific = votes.specific(vote=0.9)
    assert specific["value"][2, 0, 3] and not specific["value"][:2, 0, 3].any()
    harm = ablate_structures(model, tokenizer, {**{name: torch.zeros_like(mask) for name, mask in specific.items()},
                             "value": specific["value"]}, votes.languages, texts, draws=1, max_tokens=60)  # fmt: skip
    assert {(cell.structure, cell.layers) for cell in harm.cells if cell.language == "ru"} >= {("attention", (0, 0))}
    assert len(harm.rows()) == len(harm.cells) and all(cell.neurons > 0 for cell in harm.cells)


def test_votes_are_shares_and_sets_leave_out_what_all_share(texts):
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    votes = structure_votes(model, tokenizer, texts, top_rate=0.25, max_length=16)
    by_parallel = structure_votes(model, tokenizer, texts, top_rate=0.25, max_length=16, parallel=True)
    widths = structure_widths(layout_of(model), key_heads(layout_of(model)))
    for name in STRUCTURES:
        share = votes.share(name)
        assert share.shape == (3, 3, widths[name]) and (share * 12).allclose((share * 12).round())
        assert share.mean().item() == pytest.approx(round(0.25 * widths[name]) / widths[name])
    assert torch.equal(votes.share("value"), by_parallel.share("value"))
    assert not torch.equal(votes.share("key"), by_parallel.share("key"))
    for mask in votes.specific(vote=0.5, at_most=1).values():
        assert mask.sum(dim=0).max() <= 1
    assert random_units(votes.specific(vote=0.5)["ffn"][0], np.random.default_rng(0)).shape == (3, 48)
    with pytest.raises(SiteError, match="without attention"):
        structure_votes(make("qwen3_next"), tokenizer, texts)
    with pytest.raises(SiteError, match="s_aux"):
        structure_votes(make("gpt_oss"), tokenizer, texts)
    with pytest.raises(SelectionError, match="top_rate"):
        structure_votes(model, tokenizer, texts, top_rate=1.0)
    with pytest.raises(LanguageError, match="one language"):
        structure_votes(model, tokenizer, texts.only(["en"]), max_length=8).specific()


def test_the_figure_shows_own_less_other_harm():
    cells = [RemovalCell("fi", "ffn", "0–1", 0.05, 0.02), RemovalCell("fi", "attention", "2–3", 0.01, 0.02)]
    figure = removal_map(cells=cells)
    assert np.allclose(figure.data[0].z, [[3.0, np.nan], [np.nan, -1.0]], equal_nan=True)
    assert figure.data[0].hovertext[0][1] == "no neuron" and "own text 5.00 %" in figure.data[0].hovertext[0][0]
