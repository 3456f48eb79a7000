"""Tokens of a large vocabulary are drawn by one random number per row, and by their probabilities."""

import numpy as np
import pytest
import torch
from chat_cases import chat_tokenizer
from conftest import tiny_model, tiny_tokenizer
from scipy.stats import chisquare

from babelscope import Language
from babelscope.corpus import tokenize_prompts
from babelscope.errors import MeasurementError
from babelscope.steering.sweeps import Decoding, Prompt, drawn_tokens, generate_answers, steered_answers
from babelscope.steering.sweeps.drawn_tokens import BLOCK, TokenDraw, drawn_keywords, token_at
from babelscope.steering.sweeps.steered_answers import config_endings, ending_ids

EN, FI = Language("en"), Language("fi")


@pytest.fixture
def every_vocabulary_is_large(monkeypatch):
    monkeypatch.setattr(drawn_tokens, "LARGE", 1)


def inverted(weights, uniform):
    """The entry at which each row's weights exceed a share of their sum, by numpy in float64."""
    reached = np.cumsum(weights.numpy().astype(np.float64), axis=1)
    shares = uniform.numpy() * reached[:, -1]
    return [int(np.searchsorted(row, share, side="right")) for row, share in zip(reached, shares, strict=True)]


@pytest.mark.parametrize("entries", [1, 2, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 7])
def test_the_entry_is_that_of_the_cumulative_sum(entries):
    made = torch.Generator().manual_seed(entries)
    weights = torch.rand(400, entries, generator=made) ** 8
    weights[torch.rand(400, entries, generator=made) < 0.3] = 0
    weights[:, -1] = weights[:, -1].clamp(min=1e-3)
    uniform = torch.rand(400, generator=made, dtype=torch.float64)
    assert token_at(weights, uniform).tolist() == inverted(weights, uniform)


@pytest.mark.parametrize("kept", [[0], [BLOCK], [3, BLOCK + 2], [2 * BLOCK + 4]])
def test_no_share_takes_an_entry_of_weight_zero(kept):
    weights = torch.zeros(4, 2 * BLOCK + 5)
    weights[:, kept] = 1e-30
    uniform = torch.tensor([0.0, 0.5, 1 - 2**-53, 1.0], dtype=torch.float64)
    assert {*token_at(weights, uniform).tolist()} <= {*kept}


def test_tokens_are_drawn_by_their_probabilities_at_the_temperature():
    scores = torch.tensor([2.0, 0.0, 1.0, -1.0, 3.0])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        drawn = TokenDraw(0.7, never=(4,))(torch.zeros(20_000, 1).long(), scores.repeat(20_000, 1)).argmax(dim=1)
    expected = torch.softmax(scores[:4].double() / 0.7, dim=0)
    counts = torch.bincount(drawn, minlength=5)
    assert counts[4] == 0
    assert chisquare(counts[:4].numpy(), (expected * 20_000).numpy()).pvalue > 1e-3


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_scores_that_are_no_numbers_are_refused(broken):
    scores = torch.zeros(2, 5)
    scores[1, 3] = broken
    with pytest.raises(MeasurementError, match="NaN or infinite"):
        TokenDraw(1.0)(torch.zeros(2, 1).long(), scores)


@torch.no_grad()
def by_hand(model, tokenizer, text, temperature, tokens, never):
    """One answer without a cache: each token from the whole text before it, and one random number each."""
    ids = torch.tensor(tokenize_prompts(tokenizer, [text]))
    begun = ids.shape[1]
    for _ in range(tokens):
        scores = model(ids).logits[0, -1].double()
        scores[list(never)] = -torch.inf
        reached = torch.softmax(scores / temperature, dim=0).cumsum(dim=0)
        share = torch.rand(1, dtype=torch.float64)
        ids = torch.cat([ids, torch.searchsorted(reached, share, right=True)[None]], dim=1)
    return ids[0, begun:].tolist()


@pytest.mark.usefixtures("every_vocabulary_is_large")
@pytest.mark.parametrize("temperature", [0.6, 1.5])
def test_answers_are_those_of_a_loop_without_a_cache(temperature):
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    decoding = Decoding(new_tokens=12, temperature=temperature, seed=3, batch_size=1)
    prompts = [Prompt("0", EN, "a"), Prompt("1", EN, "once upon")]  # answered from the shortest on
    answers = generate_answers(model, tokenizer, [(prompt, FI) for prompt in prompts], decoding=decoding)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        never = config_endings(model)
        assert never
        for answer, prompt in zip(answers, prompts, strict=True):
            expected = by_hand(model, tokenizer, prompt.text, temperature, 12, never)
            special = {*tokenizer.all_special_ids}
            assert [*answer.ids] == [token for token in expected if token not in special]


@pytest.mark.usefixtures("every_vocabulary_is_large")
def test_a_chat_ends_where_an_ending_is_drawn_and_settings_of_a_checkpoint_change_nothing():
    tokenizer, requests = chat_tokenizer(), [(Prompt.chat(str(n), EN, "once upon"), FI) for n in range(60)]
    decoding = Decoding(new_tokens=20, temperature=2.0)
    model = tiny_model("llama")
    plain = generate_answers(model, tokenizer, requests, decoding=decoding)
    assert any(answer.ended for answer in plain)
    assert not any({*answer.ids} & {*ending_ids(model, tokenizer)} for answer in plain)
    model.generation_config.update(temperature=0.1, top_k=2, top_p=0.2, repetition_penalty=5.0, do_sample=True)
    assert generate_answers(model, tokenizer, requests, decoding=decoding) == plain


def test_small_vocabularies_and_likeliest_tokens_are_left_to_transformers():
    model = tiny_model("llama")
    sampled, greedy = (Decoding(temperature=temperature).settings() for temperature in (0.8, 0.0))
    assert drawn_keywords(model, sampled, drawn_tokens.LARGE - 1, (2,)) == sampled
    assert drawn_keywords(model, greedy, drawn_tokens.LARGE, (2,)) == greedy
    assert not drawn_keywords(model, sampled, drawn_tokens.LARGE, (2,))["do_sample"]


def test_batches_of_a_large_vocabulary_are_even_and_hold_every_request_once(monkeypatch):
    model, encoded, order = tiny_model("llama"), [[1]] * 10, [*range(10)]
    sizes = {}
    for name, least in (("large", 1), ("small", drawn_tokens.LARGE)):
        monkeypatch.setattr(drawn_tokens, "LARGE", least)
        batches = [*steered_answers._batches(model, encoded, order, 4)]
        assert [place for batch in batches for place in batch] == order
        sizes[name] = [len(batch) for batch in batches]
        assert [*steered_answers._batches(model, encoded, order[:8], 4)] == [order[:4], order[4:8]]
        assert [*steered_answers._batches(model, encoded, [], 4)] == []
    assert sizes == {"large": [3, 3, 4], "small": [4, 4, 2]}
