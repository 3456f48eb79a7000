"""Continuations that share a prompt: the same log-probabilities as each whole text by itself, in every family."""

import pytest
import torch
from conftest import CONFIGS, tiny_model

from babelscope.ablation.switch_off import switched_off
from babelscope.errors import CorpusError, MeasurementError
from babelscope.evaluation import continuations as continuations_module
from babelscope.evaluation.continuations import (
    Continuations,
    continuation_log_probabilities,
    split_continuations,
)
from babelscope.models import layout_of

ITEMS = [
    Continuations((1, 40, 41, 42), ((7,), (8, 9), (8, 9, 10), (8, 11), (12, 13, 14, 15))),
    Continuations((1, 50), ((7,), (60,))),
    Continuations(tuple(range(30, 55)), ((5, 6, 7, 8), (5,))),
    Continuations((1, 44, 45, 46), ((17, 18, 19), (8, 9))),
]


def by_whole_texts(model):
    """The same by plain transformers: one pass per text, without a cache."""
    for prompt, following in ITEMS:
        for ids in following:
            logits = model(torch.tensor([[*prompt, *ids]])).logits[0].double().log_softmax(dim=-1)
            yield sum(float(logits[len(prompt) + at - 1, token]) for at, token in enumerate(ids))


@pytest.mark.parametrize("family", CONFIGS)
@torch.no_grad()
def test_scores_are_those_of_each_whole_text(family, monkeypatch):
    monkeypatch.setattr(continuations_module, "CONTINUATION_ROWS", 2)
    monkeypatch.setattr(continuations_module, "HEAD_ROWS", 3)
    model = tiny_model(family)
    scores = torch.cat(continuation_log_probabilities(layout_of(model), ITEMS))
    assert torch.allclose(scores, torch.tensor([*by_whole_texts(model)], dtype=torch.float64), atol=2e-5)


def test_a_prompt_and_a_shared_beginning_pass_the_model_once():
    model, passed = tiny_model("llama"), 0
    layout = layout_of(model)

    def see(module, args, kwargs):
        nonlocal passed
        passed += kwargs["input_ids"].numel()

    with model.get_decoder().register_forward_pre_hook(see, with_kwargs=True):
        continuation_log_probabilities(layout, ITEMS[:1])
        first, passed = passed, 0
        continuation_log_probabilities(layout, [ITEMS[0], ITEMS[3]])
    # Four tokens of the prompt; rows (8, 9) and (12, 13, 14): (8,) is read in the first, and last tokens are not run.
    assert first == 4 + 2 * 3
    # Prompts of one length pass together, with rows (17, 18) and (8,) of the second.
    assert passed == 2 * 4 + 4 * 3


@torch.no_grad()
def test_neurons_that_are_off_are_off_in_every_pass():
    model = tiny_model("llama")
    layout = layout_of(model)
    mask = torch.zeros(3, layout.d_neuron, dtype=torch.bool)
    mask[1, ::2] = True
    with switched_off(layout, mask):
        scores = torch.cat(continuation_log_probabilities(layout, ITEMS))
    model.model.layers[1].mlp.down_proj.weight[:, ::2] = 0
    assert torch.allclose(scores, torch.tensor([*by_whole_texts(model)], dtype=torch.float64), atol=2e-5)


def test_texts_are_split_where_they_first_differ_from_the_prompt():
    assert split_continuations((1, 5, 6), [(1, 5, 6, 7), (1, 5, 6, 8, 9)]) == ((1, 5, 6), ((7,), (8, 9)))
    # The tokenizer joined the prompt's last token with the text: all are scored from there on.
    assert split_continuations((1, 5, 6), [(1, 5, 67), (1, 5, 6, 8)]) == ((1, 5), ((67,), (6, 8)))
    with pytest.raises(CorpusError, match="without a common first token"):
        split_continuations((5, 6), [(7, 8), (5, 6, 9)])


def test_a_broken_model_has_no_score():
    model = tiny_model("llama")
    model.model.norm.weight.data.fill_(torch.nan)
    with pytest.raises(MeasurementError, match="NaN"):
        continuation_log_probabilities(layout_of(model), ITEMS)
