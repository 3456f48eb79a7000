"""A model of few positions: texts are read to as many tokens; what does not fit is one line before anything runs."""

import logging

import pytest
import torch
from conftest import tiny_model, tiny_tokenizer
from steering_cases import push

from babelscope import layout_of, observe, select_lape, train_subnetwork
from babelscope.corpus import as_corpus
from babelscope.errors import PrerequisiteError
from babelscope.evaluation import HeldOut, held_out_losses
from babelscope.languages import Language
from babelscope.models.text_length import USUAL_LENGTH, text_length
from babelscope.steering.sweeps import Decoding, Prompt, generate_answers, language_effects, random_directions
from babelscope.steering.sweeps.side_effects import Recipe
from babelscope.subnetworks import Contrast, ContrastSteps, ParallelPairs
from babelscope.subnetworks.packing import mix_texts

POSITIONS = 128
"""Of the tiny GPT-2."""
LONG = {"en": ["a b c d e f " * 13] * 4, "fi": ["b d f a a a " * 13] * 4}
EN, FI = Language.parse("en"), Language.parse("fi")
SHORT = {tag: [text[:60] for text in texts] for tag, texts in LONG.items()}


@pytest.fixture(scope="module")
def opened():
    return tiny_model("gpt2"), tiny_tokenizer()


def test_texts_are_read_to_the_positions_there_are_and_the_log_says_so_once(opened, caplog):
    model, tokenizer = tiny_model("gpt2"), opened[1]
    with caplog.at_level(logging.WARNING):
        assert text_length(layout_of(model), None) == text_length(layout_of(model), None) == POSITIONS
    assert [record.getMessage() for record in caplog.records] == [
        "this gpt2 has 128 positions: texts are read to so many tokens, not to 512"
    ]
    usual, said = (observe(model, tokenizer, LONG, **words) for words in ({}, {"max_length": POSITIONS}))
    assert torch.equal(usual.truncated, said.truncated) and int(usual.truncated.min()) > 0
    assert [part.bits_per_byte for part in held_out_losses(model, tokenizer, LONG)] == [
        part.bits_per_byte for part in held_out_losses(model, tokenizer, LONG, max_length=POSITIONS)
    ]


def test_what_was_asked_for_is_not_cut_in_silence(opened):
    with pytest.raises(PrerequisiteError, match="a text of 150 tokens came; this gpt2 has 128 positions.*max_length"):
        held_out_losses(*opened, LONG, max_length=150)


def test_positions_that_turn_have_no_end():
    layout = layout_of(tiny_model("llama"))
    assert layout.positions is None and text_length(layout, None) == USUAL_LENGTH == 512
    assert (text_length(layout, 9), text_length(layout, None, 64)) == (9, 64)
    layout.check_prompts([[5] * 1000], 10**6)


def test_side_effects_and_random_directions_read_long_texts(opened):
    recipe: Recipe = push()
    assert set(language_effects(*opened, recipe, LONG, resamples=20)) == {"en", "fi"}
    assert len(random_directions(*opened, LONG, push().site, draws=2)) == 2


def test_an_answer_that_does_not_fit_is_refused_before_anything_is_generated(opened):
    model, tokenizer = opened
    requests = [(Prompt("0", EN, "a" * 119), FI), (Prompt("1", EN, "a"), FI)]  # BOS before each

    def refuse(*_):
        raise AssertionError("a pass ran")

    with model.register_forward_pre_hook(refuse), pytest.raises(PrerequisiteError, match="with room for 9 new ones"):
        generate_answers(model, tokenizer, requests, decoding=Decoding(new_tokens=10))
    assert len(generate_answers(model, tokenizer, requests, decoding=Decoding(new_tokens=9))) == 2
    with pytest.raises(PrerequisiteError, match="room for 0 new ones; expected at most as many; shorten the prompt"):
        layout_of(model).check_prompts([[5] * 200], 1)
    with pytest.raises(PrerequisiteError, match="token 300 came; this gpt2 has 300 of them"):
        layout_of(model).check_prompts([[5], [5, 300]], 1)


def test_training_refuses_rows_past_the_positions_in_one_line(opened):
    model, tokenizer = opened
    neurons = select_lape(observe(model, tokenizer, LONG), top_rate=0.9, min_count=0)["en"]
    with pytest.raises(PrerequisiteError, match="a text of 157 tokens came; this gpt2 has 128 positions.*max_length"):
        train_subnetwork(model, tokenizer, neurons, LONG["en"], steps=1)
    trained = train_subnetwork(
        model, tokenizer, neurons, LONG["en"], steps=1, max_length=64, tokens_per_step=64, validation=LONG["en"]
    )
    assert trained.languages == ("en",)


def test_rows_longer_than_the_positions_hold_texts_that_are_not(opened):
    """Each packed piece begins at position 0; a piece alone is padded to the row."""
    model, tokenizer = opened
    packed = mix_texts(tokenizer, EN, SHORT["en"] * 9, None, share=0.0, length=200, seed=0)
    packed.check(layout_of(model))
    assert (packed.target.longest, HeldOut.prepare(tokenizer, SHORT)[0].documents[0].n_counted) == (61, 60)
    alone = mix_texts(tokenizer, EN, SHORT["en"] * 9, None, share=0.0, length=200, seed=0, model_type="opt")
    assert alone.target.longest == 200


def test_pairs_past_the_positions_are_refused_before_a_step(opened):
    model, tokenizer = opened
    pairs = ParallelPairs.of(tokenizer, as_corpus(LONG, parallel=True), max_length=150)
    steps = ContrastSteps(Contrast(layer=1, size=2), pairs)
    with pytest.raises(PrerequisiteError, match="a text of 150 tokens came"):
        steps.check(layout_of(model))
