"""Working languages over checkpoints: planted moves of neurons, bits per byte and the leading language by hand."""

import math

import numpy as np
import pytest
import torch

from babelscope import load_corpus, select_entropy_lambda
from babelscope.errors import SelectionError
from babelscope.evaluation import bits_per_byte
from babelscope.languages import Language
from babelscope.probes.lens.word_lists import indicative_tokens
from babelscope.probes.lens.working_languages import held_out_bits, track_working_languages, transfer_of

EN, FI = Language("en"), Language("fi")


def test_planted_moves_are_counted_and_stand_above_permuted_ones():
    old, new = torch.zeros(3, 200, dtype=torch.bool), torch.zeros(3, 200, dtype=torch.bool)
    old[1, :20], new[1, 5:25] = True, True
    move = transfer_of("b", EN, FI, old, new, 99, np.random.default_rng(0))
    assert (move.neurons, move.share, move.p) == (15, 0.75, 0.01)
    assert move.null == pytest.approx(0.1, abs=0.03)  # 20 of 200 at random
    far = transfer_of("b", EN, FI, old, torch.roll(new, 1, dims=0), 99, np.random.default_rng(0))
    assert far.neurons == 0 and far.p == 1.0
    assert math.isnan(transfer_of("b", EN, FI, old, torch.zeros_like(new), 9, np.random.default_rng(0)).p)


def test_the_working_language_is_the_largest_share_and_bits_are_those_of_the_whole_text(reference):
    texts, others = (load_corpus("reference", (EN, FI), split=split).head(count) for split, count in
                     (("valid", 6), ("train", 120)))  # fmt: skip
    tokens = indicative_tokens(reference[1], others, vocabulary=reference[0].config.vocab_size)
    history = track_working_languages(
        {"a": lambda: reference, "b": lambda: reference}, texts, others, select_entropy_lambda, tokens=tokens,
        tokens_per_language=1500, lens_tokens=60, draws=9,
    )  # fmt: skip
    step = history.steps[1]
    share = step.lens.share[1, -1]
    assert history.working()[1][1][-1] == step.lens.tokens.languages[int(share.argmax())] == FI
    assert {move.checkpoint for move in history.transfers()} == {"b"}
    bits = held_out_bits(*reference, texts, None, 0)
    assert {tag: value.estimate for tag, value in bits.items()} == pytest.approx(bits_per_byte(*reference, texts))
    assert all(value.low < value.estimate < value.high for value in bits.values())
    claims = {row.claim for row in history.rows()}
    assert claims == {f"{name}: {kind}" for name in "ab" for kind in (
        "working language by the lens", "held-out bits per byte")} | {
        "b: neurons that were the other language's at the checkpoint before"}  # fmt: skip
    with pytest.raises(SelectionError, match="at least two"):
        track_working_languages({"a": lambda: reference}, texts, others, select_entropy_lambda, tokens=tokens)
