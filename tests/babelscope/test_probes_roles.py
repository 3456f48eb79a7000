"""Removal votes, concept neurons and roles, against brute force and planted structure."""

import functools
import math

import numpy as np
import pytest
import torch
from conftest import tiny_model, tiny_tokenizer

from babelscope import Site, load_corpus, observe, select_entropy_lambda
from babelscope.corpus import batch_documents, tokenize_documents
from babelscope.errors import CorpusError, LanguageError, SelectionError, SiteError
from babelscope.languages import parse_languages
from babelscope.models import layout_of, run_pass
from babelscope.neurons.counts import read_counts
from babelscope.probes.concepts.concept_neurons import agreement_of, compare_tops, concept_neurons
from babelscope.probes.units.removal import document_effects, effect_hooks, removal_sets, removal_votes, top_of
from babelscope.probes.units.roles import role_shares, track_roles
from babelscope.recording.walk import walk


@pytest.fixture
def texts():
    return load_corpus("reference", ["en", "fi", "ru"], split="valid").head(30)


def mlp_outputs(layout, batch, layer):
    seen = []
    with layout.watch(Site(layer, "mlp_out"), lambda value, sign, routes: seen.append(value.clone())):
        run_pass(layout, batch.input_ids, batch.attention_mask)
    return seen[0]


class Effects:
    """What the hooks of one batch give."""

    def __init__(self, hooks):
        self.hooks = hooks

    def add(self, batch, values):
        self.effects = list(values.values())


def effects_by_layer(layout, documents):
    with effect_hooks(layout) as hooks:
        effects = Effects(hooks)
        walk(layout, [documents], [effects])
    return effects.effects


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2", "phi3", "opt"])
def test_the_effect_of_removal_equals_brute_force(family, texts):
    model = tiny_model(family, dtype=torch.float64)
    layout, tokenizer = layout_of(model), tiny_tokenizer()
    documents = tokenize_documents(tokenizer, texts["fi"][:5], 0, max_length=40)
    batch = batch_documents(documents, batch_tokens=4096, pad=0)[0]
    found = effects_by_layer(layout, documents)
    for layer, neuron in ((0, 3), (1, 47), (2, 11)):
        whole = mlp_outputs(layout, batch, layer)
        column = layout.neuron_rows(layer)["down"]
        with torch.no_grad():
            kept = column[0, neuron].clone()
            column[0, neuron] = 0
            without = mlp_outputs(layout, batch, layer)
            column[0, neuron] = kept
        squares = (whole - without).square().sum(dim=-1) * batch.counted
        brute = (squares.sum(dim=1) / batch.counted.sum(dim=1)).sqrt()
        assert torch.allclose(found[layer][:, neuron], brute, rtol=1e-6, atol=1e-12)


def test_the_effect_is_a_root_mean_square_over_counted_tokens():
    documents = tokenize_documents(
        tiny_tokenizer(), load_corpus("reference", ["en"], split="test")["en"][:1], 0, max_length=4
    )
    batch = batch_documents(documents, batch_tokens=64, pad=0)[0]
    value = torch.tensor([[[100.0], [1.0], [-2.0], [2.0]]])  # the first is BOS
    assert document_effects(value, torch.tensor([0.5], dtype=torch.float64), batch.counted).item() == pytest.approx(
        0.5 * math.sqrt(3)
    )


def test_a_document_votes_for_the_largest_effects():
    assert top_of(torch.tensor([[0.1, 3.0, 2.0, 0.5]], dtype=torch.float64), 0.5).tolist() == [
        [False, True, True, False]
    ]


def test_a_document_does_not_vote_for_neurons_without_an_effect():
    effect = torch.tensor([[0.0, 0.2, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    assert top_of(effect, 0.75).tolist() == [[False, True, False, False], [False] * 4]


def test_a_stricter_vote_gives_smaller_sets_and_specific_sets_leave_out_the_core(texts):
    votes = removal_votes(tiny_model("llama"), tiny_tokenizer(), texts, top_rate=0.3)
    assert (votes.share * 30).allclose((votes.share * 30).round())
    assert torch.allclose(votes.share.mean(dim=2), torch.full((3, 3), 14 / 48, dtype=torch.float64))
    before = None
    for vote in (0.5, 0.7, 0.9, 1.0):
        sets = removal_sets(votes, vote=vote)
        chosen = sets.specific.mask() | sets.core
        assert not (sets.specific.mask() & sets.core).any()
        assert before is None or not (chosen & ~before).any()
        before = chosen
    assert removal_sets(votes, vote=0.5, at_most=1).specific.mask().sum(dim=0).max() <= 1


def test_a_planted_neuron_is_voted_for_by_its_language_only():
    texts = load_corpus("reference", ["en", "id", "ru"], split="valid").head(30)
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    layout = layout_of(model)
    low = torch.tensor(tokenizer("".join(map(chr, range(128))))["input_ids"])
    with torch.no_grad():
        model.get_input_embeddings().weight[:, 0] = torch.where(torch.isin(torch.arange(300), low), -30.0, 30.0)
        for name in ("gate", "up", "down"):
            layout.neuron_rows(0)[name][0, 5] = 0.0
            layout.neuron_rows(0)[name][0, 5, 0] = 3.0
    votes = removal_votes(model, tokenizer, texts, top_rate=0.05)
    sets = removal_sets(votes, vote=0.9, draws=19)
    assert (0, 5) in sets.specific.as_dict()["ru"]
    assert votes.share[:2, 0, 5].max() < 0.5
    row = sets.rows()[2]
    assert row.language == "ru" and row.estimate > sets.null[:, 2].mean() and row.p <= 0.1


def test_agreement_of_strongest_sentences_by_hand():
    top = torch.tensor([[[0, 1], [2, 3]], [[1, 2], [2, 3]], [[0, 1], [4, 5]]])
    everyone = 1 - torch.eye(3, dtype=torch.float64)
    assert agreement_of(top, everyone, 6).tolist() == pytest.approx([(0.5 + 1.0 + 0.5) / 3, 1 / 3])
    pair = torch.zeros(3, 3, dtype=torch.float64)
    pair[0, 2] = pair[2, 0] = 1
    assert agreement_of(top, pair, 6).tolist() == [1.0, 0.0]


def test_a_sentence_on_which_a_neuron_does_nothing_is_none_of_its_strongest():
    top = torch.tensor([[[0, 1], [2, -1], [-1, -1]], [[1, 0], [2, -1], [-1, -1]]])
    found = agreement_of(top, 1 - torch.eye(2, dtype=torch.float64), 4)
    assert found.tolist() == [1.0, 0.5, 0.0]


def test_dead_neurons_are_no_concept_neurons():
    model, rng = tiny_model("opt"), np.random.default_rng(0)
    with torch.no_grad():
        for layer in model.model.decoder.layers:
            layer.fc1.weight[:12], layer.fc1.bias[:12] = 0, -1
    texts = {
        tag: ["".join(map(chr, rng.integers(97, 123, size=5 + extra + 7 * i % 40))) for i in range(60)]
        for extra, tag in enumerate(("en", "fi", "eu"))
    }
    found = concept_neurons(model, tiny_tokenizer(), texts, strongest=10, draws=19)
    assert (found.agreement[:, :12] == 0).all() and (found.q[:, :12] == 1).all()
    assert (found.top[:, :, :12] == -1).all() and (found.agreement[:, 12:] > 0).any()


def test_random_tops_agree_as_chance_says_and_planted_ones_are_found():
    generator = torch.Generator().manual_seed(0)
    top = torch.rand(2, 4, 200, 100, generator=generator).topk(10, dim=3).indices
    top[1, :, :20] = top[1, :1, :20]
    bins = np.repeat(np.arange(5), 20)
    found = compare_tops(
        top, 1 - torch.eye(4, dtype=torch.float64), bins, parse_languages(("en", "fi", "ru", "zh")), "languages", 19, 0
    )
    assert found.null[0] == pytest.approx(0.1, abs=0.003)
    assert found.agreement[0].mean() == pytest.approx(0.1, abs=0.01)
    assert (found.q[0] <= 0.05).sum() <= 2
    assert (found.q[1, :20] <= 0.05).all() and (found.agreement[1, :20] == 1).all()
    assert found.rows()[1].estimate >= 0.1


def test_streamed_tops_equal_those_of_all_sentences(texts):
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    found = concept_neurons(model, tokenizer, texts, strongest=5, draws=3)
    layout = layout_of(model)
    for k, documents in enumerate(texts.values()):
        rows = []
        for document in documents:
            one = tokenize_documents(tokenizer, [document], k, max_length=512)
            rows.append(effects_by_layer(layout, one)[1][0])
        best = torch.stack(rows).topk(5, dim=0).indices.T
        same = (found.top[1, k].sort(dim=1).values == best.sort(dim=1).values).all(dim=1)
        assert same.double().mean() > 0.95  # float32 sums of other batches may turn near ties


def test_a_language_twice_has_concept_neurons_only():
    lines = [document.text for document in load_corpus("reference", ["en"], split="train")["en"][:60]]
    found = concept_neurons(tiny_model("llama"), tiny_tokenizer(), {"en": lines, "fi": lines}, draws=5)
    assert (found.agreement == 1).all() and (found.q <= 0.05).all()


@pytest.fixture
def observation(texts):
    return observe(tiny_model("llama"), tiny_tokenizer(), texts, tokens_per_language=None, shards=8)


def classify(*source):
    return select_entropy_lambda(*source, top_rate=0.5, min_count=0)


def test_role_shares_are_those_of_the_classes(observation):
    found = role_shares(observation, classify, blocks=3, draws=2)
    classes = classify(observation).classes
    assert len(found) == 9 and [row.layers for row in found[::3]] == [(0,), (1,), (2,)]
    for row in found:
        number = ("specific", "related", "general").index(row.role) + 1
        assert row.neurons == int((classes[row.block] == number).sum())
        assert row.share == row.neurons / 48
        assert row.null <= row.null_high <= 1
        above = classify(observation).above
        assert row.above == int((above[row.block] == number).sum()) and row.above_share == row.above / 48
        assert row.above >= row.neurons and row.above_null <= row.above_null_high <= 1
    assert "layers 2–2" in found[-1].rows()[0].claim


def test_general_neurons_are_counted_among_all_above_the_bar(observation):
    """Witness: numpy on the counts. None of the selected can be general where the penalty is searched."""
    rule = functools.partial(select_entropy_lambda, top_rate=0.05, bar_rate=0.5, min_count=0)
    found = role_shares(observation, rule, blocks=3, draws=1)
    counts = read_counts(observation, None, None, "mlp_gate")
    rate = counts.active.numpy() / counts.tokens.numpy()
    flat = np.sort(rate, axis=None)
    bar = flat[round(0.5 * flat.size) - 1]
    by_layer = (rate > bar).all(axis=2).sum(axis=1)
    general = [row for row in found if row.role == "general"]
    assert [row.above for row in general] == by_layer.tolist() and by_layer.sum() > 0
    assert [row.neurons for row in general] == [0, 0, 0]
    selected, every = general[0].rows()
    assert "by construction" in selected.note and "by construction" not in every.note
    assert every.n == by_layer[0] and "of all above the bar" in every.claim


def test_general_neurons_can_be_selected_with_a_given_penalty(observation):
    given = functools.partial(select_entropy_lambda, top_rate=0.5, bar_rate=0.5, min_count=0, penalty=5.0)
    general = [row for row in role_shares(observation, given, blocks=1, draws=1) if row.role == "general"]
    assert general[0].neurons > 0 and "by construction" not in general[0].rows()[0].note


def test_roles_are_tracked_over_checkpoints(texts):
    tokenizer = tiny_tokenizer()
    open_ = {
        str(step): lambda seed=seed: (tiny_model("llama", seed=seed), tokenizer) for step, seed in ((0, 1), (9, 0))
    }
    history = track_roles(open_, texts, classify, blocks=2, shards=4, draws=1)
    assert [step.checkpoint for step in history.steps] == ["0", "9"]
    last = history.steps[-1].kept
    assert all(value == pytest.approx(1.0) for value in last.values() if not math.isnan(value))
    first = [value for value in history.steps[0].kept.values() if not math.isnan(value)]
    assert abs(np.mean(first)) < 0.3
    assert len(history.rows()) == 2 * (2 * 3 * 2 + 3)


def test_what_can_not_be_probed_is_refused(texts, observation):
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    with pytest.raises(SiteError, match="mixture"):
        concept_neurons(tiny_model("mixtral"), tokenizer, texts)
    with pytest.raises(SelectionError, match="top_rate"):
        removal_votes(model, tokenizer, texts, top_rate=1.5)
    with pytest.raises(LanguageError, match="one language"):
        removal_sets(removal_votes(model, tokenizer, texts.only(["en"])))
    with pytest.raises(CorpusError, match="parallel"):
        concept_neurons(model, tokenizer, {"en": ["a"] * 30, "fi": ["b"] * 31})
    with pytest.raises(LanguageError, match="scripts"):
        concept_neurons(model, tokenizer, texts.only(["en", "fi"]), across="scripts")
    with pytest.raises(SelectionError, match="blocks"):
        role_shares(observation, classify, blocks=9)
    with pytest.raises(SelectionError, match="checkpoint"):
        track_roles({"0": lambda: (model, tokenizer)}, texts, classify)
