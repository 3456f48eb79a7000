"""Steering in a loop that decodes by hand, beside `generate`: the prompt is what came without a cache."""

import pytest
import torch
from conftest import FOUR, tiny_model
from steering_cases import (
    GATES,
    MASK,
    by_hand,
    cache_name,
    close,
    conditional,
    padded,
    pasted,
    push,
    scored,
    threshold_between,
)

from babelscope import layout_of, steer
from babelscope.errors import SteeringError
from babelscope.evaluation.continuations import Continuations, continuation_log_probabilities
from babelscope.upstream.names import attribute


@pytest.mark.parametrize("gate", GATES, ids=str)
@pytest.mark.parametrize("family", FOUR)
def test_a_loop_by_hand_steers_as_generate_does(family, ids, gate):
    model = tiny_model(family)
    with steer(model, push(**gate)) as receipt:
        expected = scored(model, padded(ids), MASK)
        by_generate = str(receipt)
    with steer(model, push(**gate)) as receipt:
        close(by_hand(model, padded(ids), MASK), expected)
        assert str(receipt) == by_generate
        # A second prompt begins anew.
        close(by_hand(model, padded(ids), MASK), expected)


def test_conditions_and_clean_values_are_those_of_the_loops_own_prompt(ids):
    model = tiny_model("llama")
    threshold = threshold_between(model, ids)
    for operation in (conditional(model, threshold=threshold), pasted(model)):
        with steer(model, operation):
            close(by_hand(model, padded(ids), MASK), scored(model, padded(ids), MASK))
            # What an earlier generate or loop left says nothing of the next one.
            close(by_hand(model, ids[:2], torch.ones_like(ids[:2])), scored(model, ids[:2]))


def test_a_cache_that_was_filled_outside_says_nothing_of_the_prompt(ids):
    """As with the virtual tokens of prefix tuning, of which a pass of text begins."""
    model = tiny_model("llama")
    with torch.no_grad():
        cache = attribute(model(input_ids=ids[:, :3], use_cache=True), "output.cache")
        with steer(model, push(phase="prompt")) as receipt:
            model(input_ids=ids[:, 3:], **{cache_name(model): cache})
    assert receipt.edited(phase="prompt") == ids[:, 3:].numel() and receipt.edited(phase="generated") == 0


@pytest.mark.parametrize("gate", [{"phase": "prompt"}, {"phase": "generated"}, {"positions": (-1, None)}], ids=str)
def test_continuations_are_scored_as_generated_tokens(gate):
    """Rows chosen anew from the cache of prompts, with pads behind them, against one text at a time by a loop."""
    model = tiny_model("llama")
    items = [Continuations((1, 5, 6), ((7, 8, 9), (7, 3))), Continuations((1, 9, 4), ((2, 3, 4, 5), (8,)))]
    operation = push(**gate)
    with steer(model, operation):
        found = continuation_log_probabilities(layout_of(model), items)
        for item, row in zip(items, found, strict=True):
            for following, value in zip(item.following, row.tolist(), strict=True):
                assert value == pytest.approx(loop_score(model, item.prompt, following), abs=1e-4)
    plain = continuation_log_probabilities(layout_of(model), items)
    assert not torch.allclose(torch.cat(found), torch.cat(plain), atol=1e-2)


@torch.no_grad()
def loop_score(model, prompt, following):
    out, total = model(input_ids=torch.tensor([prompt]), use_cache=True), 0.0
    for token in following:
        total += float(out.logits[0, -1].double().log_softmax(dim=0)[token])
        cache = {cache_name(model): attribute(out, "output.cache")}
        out = model(input_ids=torch.tensor([[token]]), use_cache=True, **cache)
    return total


def test_a_condition_is_refused_where_rows_were_chosen_anew():
    model = tiny_model("llama")
    items = [Continuations((1, 5, 6), ((7, 8, 9), (6, 3))), Continuations((1, 9, 4), ((2, 3, 4, 5),))]
    with (
        steer(model, conditional(model, threshold=-1.0)),
        pytest.raises(SteeringError, match="met by no clean pass over the prompt"),
    ):
        continuation_log_probabilities(layout_of(model), items)
    # The map of a prompt's last token needs no clean value behind the prompt.
    with steer(model, pasted(model)):
        assert all(row.isfinite().all() for row in continuation_log_probabilities(layout_of(model), items))
