"""Planted neurons are found: a model in which chosen neurons fire for one language by construction."""

import numpy as np
import pytest
import torch
from conftest import tiny_model

from babelscope import observe, select_entropy_lambda, select_lape

LETTERS = {"en": "abcdefg", "fi": "hijklmn", "eu": "opqrstu"}
PER_LAYER = 2
BAR = 0.91
"""36 of the 432 rates are 1 by construction: the bar must lie below them, and above those of random neurons."""


@pytest.fixture
def planted(tokenizer):
    """The model and where its neurons are: the stream is the embedding, whose first three axes say the language."""
    model, generator = tiny_model("llama"), torch.Generator().manual_seed(7)
    places = {tag: [] for tag in (*LETTERS, "all")}
    with torch.no_grad():
        embedding = torch.randn(model.config.vocab_size, 32, generator=generator)
        embedding[:, :3] = 0
        for axis, letters in enumerate(LETTERS.values()):
            for letter in letters:
                (token,) = tokenizer(letter, add_special_tokens=False)["input_ids"]
                embedding[token, axis] = 5
        model.model.embed_tokens.weight.copy_(embedding)
        for number, layer in enumerate(model.model.layers):
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
            gate = torch.randn(48, 32, generator=generator)
            gate[:, :3] = 0
            chosen = torch.randperm(48, generator=generator)[: 4 * PER_LAYER].view(4, PER_LAYER)
            for axis, tag in enumerate((*LETTERS, "all")):
                for neuron in chosen[axis]:
                    gate[neuron] = 0
                    gate[neuron, :3] = 1.0 if tag == "all" else torch.where(torch.arange(3) == axis, 1.0, -1.0)
                    places[tag].append((number, int(neuron)))
            layer.mlp.gate_proj.weight.copy_(gate)
    return model, {tag: sorted(found) for tag, found in places.items()}


@pytest.fixture
def observation(planted, tokenizer):
    rng = np.random.default_rng(0)
    texts = {tag: ["".join(rng.choice(list(letters), 40)) for _ in range(30)] for tag, letters in LETTERS.items()}
    return observe(planted[0], tokenizer, texts)


def test_recall_and_precision_are_one(planted, observation):
    _, places = planted
    sets = select_lape(observation, top_rate=9 * PER_LAYER / (3 * 48), filter_rate=BAR, bar_rate=BAR)
    assert sets.as_dict() == {tag: places[tag] for tag in LETTERS}


def test_general_neurons_are_found_although_the_penalty_selects_none(planted, observation):
    _, places = planted
    found = select_entropy_lambda(observation, top_rate=0.05, bar_rate=BAR)
    assert sorted(map(tuple, (found.above == 3).nonzero().tolist())) == places["all"]
    assert not (found.classes == 3).any()
