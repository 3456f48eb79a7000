"""Neurons of experts by the effect of removing them: against weights set to zero, and planted ones."""

import pytest
import torch
from conftest import tiny_model, tiny_tokenizer
from family_configs import FORMS, make

from babelscope import load_corpus
from babelscope.corpus import batch_documents, tokenize_documents
from babelscope.models import layout_of, run_pass
from babelscope.models.expert_hooks import weights_given
from babelscope.probes.units.removal import effect_hooks, effect_reader, removal_sets, removal_votes, routed_effects
from babelscope.probes.units.structure_ablation import ablate_structures, structures_off
from babelscope.probes.units.structure_removal import structure_votes
from babelscope.recording.walk import walk
from babelscope.recording.watchers import SiteValue
from babelscope.sites import Site

ROUTED = [
    form
    for form in (
        "mixtral",
        "qwen3_moe",
        "olmoe",
        "qwen2_moe",
        "qwen2_moe with shares",
        "phimoe",
        "gpt_oss",
        "qwen3_next",
    )
    if form in FORMS
]


@pytest.fixture(scope="module")
def texts():
    return load_corpus("reference", ["en", "fi", "ru"], split="valid").head(12)


class Effects:
    """What the hooks of one batch give."""

    def __init__(self, hooks):
        self.hooks = hooks

    def add(self, batch, values):
        self.effects = list(values.values())


def output_of(layout, batch, layer):
    seen = []
    with layout.watch(Site(layer, "mlp_out"), lambda value, *_: seen.append(value.clone())):
        run_pass(layout, batch.input_ids, batch.attention_mask)
    return seen[0]


@pytest.mark.parametrize("form", ROUTED)
def test_the_effect_of_an_experts_neuron_equals_its_weights_at_zero(form, texts):
    """The neuron's column of the down projection at zero, and what the layer's output loses by it, token by token.

    That in float64, which transformers' loop over the experts knows and its grouped form does not.
    """
    layout, wide = layout_of(make(form)), layout_of(make(form, torch.float64))
    wide.model.set_experts_implementation("eager")
    documents = tokenize_documents(tiny_tokenizer(), texts["fi"][:4], 0, max_length=30)
    batch = batch_documents(documents, batch_tokens=4096, pad=0)[0]
    with effect_hooks(layout) as hooks:
        effects = Effects(hooks)
        walk(layout, [documents], [effects])
    met = 0
    for layer in range(layout.n_layers):
        whole, down = output_of(wide, batch, layer), wide.neuron_rows(layer)["down"]
        for expert in range(layout.n_experts):
            neuron = (7 * expert + layer) % layout.d_neuron
            with torch.no_grad():
                before = down[expert, neuron].clone()
                down[expert, neuron] = 0
                change = whole - output_of(wide, batch, layer)
                down[expert, neuron] = before
            brute = (change.square().sum(dim=-1) * batch.counted).sum(dim=1) / batch.counted.sum(dim=1)
            ours = effects.effects[layer][:, expert * layout.d_neuron + neuron]
            assert torch.allclose(ours, brute.sqrt(), rtol=1e-4, atol=1e-7)
            met += int((brute > 0).sum())
    assert met > 10


def test_the_effect_is_weighed_by_the_router_by_hand():
    """Two experts of one neuron, two tokens: 0.75·3 and 1·0 of the first, 0.25·2 and nothing of the second."""
    value, routes = torch.tensor([[[[3.0], [2.0]], [[0.0], [5.0]]]]), torch.tensor([[[0, 1], [0, 2]]])
    weights, norm = torch.tensor([[[0.75, 0.25], [1.0, 0.5]]]), torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)
    effects = routed_effects(value, routes, weights, norm, torch.tensor([[True, True]]))
    assert effects[0].tolist() == pytest.approx([0.75 * 3 / 2**0.5, 2 * 0.25 * 2 / 2**0.5, 4 * 0.5 * 5 / 2**0.5])
    first_alone = routed_effects(value, routes, weights, norm, torch.tensor([[True, False]]))
    assert first_alone[0].tolist() == pytest.approx([0.75 * 3, 2 * 0.25 * 2, 0])
    documents = tokenize_documents(tiny_tokenizer(), load_corpus("reference", ["en"])["en"][:1], 0, max_length=3)
    batch = batch_documents(documents, batch_tokens=64, pad=0)[0]
    read = effect_reader(norm, [weights.flatten(0, 1)], 0)
    assert torch.equal(read(batch, SiteValue(value, value, routes, torch.tensor([[True, True]]))), effects)


def plant(model):
    """A direction that Cyrillic bytes alone have, read by neuron 5 of every expert of layer 0; expert 1 writes it."""
    layout, tokenizer = layout_of(model), tiny_tokenizer()
    low = torch.tensor(tokenizer("".join(map(chr, range(128))))["input_ids"])
    with torch.no_grad():
        model.get_input_embeddings().weight[:, 0] = torch.where(torch.isin(torch.arange(300), low), -30.0, 30.0)
        router = layout.layer(0).get_submodule(layout.family.router).weight
        router.zero_()
        router[:, 0] = torch.tensor([0.1, 0.2, 0.0, 0.0])
        layout.layer(0).self_attn.o_proj.weight.zero_()
        rows = layout.neuron_rows(0)
        for name in ("gate", "up"):
            rows[name][:, 5] = 0.0
            rows[name][:, 5, 0] = 3.0
        rows["down"][:, 5] = 0.0
        rows["down"][1, 5, 1] = 3.0
    return model


@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe"])
def test_a_planted_neuron_of_one_expert_is_its_languages_own(family):
    texts = load_corpus("reference", ["en", "id", "ru"], split="valid").head(30)
    model, tokenizer = plant(tiny_model(family)), tiny_tokenizer()
    layout = layout_of(model)
    place = (0, layout.d_neuron + 5)
    votes = removal_votes(model, tokenizer, texts, top_rate=0.02)
    assert votes.effect.shape == (3, 3, layout.width("mlp_inner"))
    sets = removal_sets(votes, vote=0.9, draws=3)
    assert place in sets.specific.as_dict()["ru"] and votes.share[:2, *place].max() < 0.5
    by_structure = structure_votes(model, tokenizer, texts, top_rate=0.02, max_length=24)
    specific = by_structure.specific(vote=0.9)
    assert specific["ffn"][2, *place] and specific["ffn"].shape == votes.effect.shape
    harm = ablate_structures(model, tokenizer, specific, by_structure.languages, texts, draws=1, max_tokens=60)
    assert {(cell.structure, cell.layers) for cell in harm.cells if cell.language == "ru"} >= {("ffn", (0, 0))}


def test_experts_neurons_switched_off_equal_their_weights_at_zero(texts):
    layout = layout_of(tiny_model("mixtral"))
    documents = tokenize_documents(tiny_tokenizer(), texts["ru"][:2], 0, max_length=20)
    batch = batch_documents(documents, batch_tokens=4096, pad=0)[0]
    mask = torch.zeros(layout.n_layers, layout.width("mlp_inner"), dtype=torch.bool)
    mask[1, ::3] = True
    with structures_off(layout, {"ffn": mask}):
        off = output_of(layout, batch, 1)
    whole = output_of(layout, batch, 1)
    with torch.no_grad():
        for unit in mask[1].nonzero().flatten().tolist():
            layout.neuron_rows(1)["down"][divmod(unit, layout.d_neuron)] = 0
    assert torch.allclose(off, output_of(layout, batch, 1), atol=1e-5) and not torch.allclose(off, whole, atol=0.1)


def test_weights_are_those_the_experts_are_given_and_the_look_ends(texts):
    layout = layout_of(tiny_model("olmoe"))
    ids = torch.tensor([[5, 6, 7]])
    with weights_given([layout.experts(layer) for layer in range(3)]) as given:
        run_pass(layout, ids, torch.ones_like(ids))
    assert all(weights is not None and weights.shape == (3, 2) for weights in given)
    assert not any(layout.experts(layer)._forward_pre_hooks for layer in range(3))
