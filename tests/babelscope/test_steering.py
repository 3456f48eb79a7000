"""Steering acts on the right rows and tokens in every kind of batch."""

from itertools import pairwise

import pytest
import torch
from conftest import FOUR, beginning, tiny_model
from steering_cases import (
    GATES,
    MASK,
    MIDDLE,
    PHASES,
    STEPS,
    WAYS,
    answer,
    cache_name,
    close,
    logits,
    padded,
    push,
    scored,
    shift,
    vector,
)
from transformers import DynamicCache

from babelscope import (
    Gate,
    Operation,
    Schedule,
    Site,
    layout_of,
    read_site,
    steer,
)
from babelscope.corpus import tokenize_prompt
from babelscope.errors import ArtifactError

# Phases, caches, chunks, padding


def test_the_phases_differ_and_the_prompt_ends_where_it_ends(model, ids):
    base = answer(model, ids)
    words = {}
    for phase in PHASES:
        with steer(model, push(phase=phase)):
            words[phase] = answer(model, ids)
    assert all(not torch.equal(words[phase], base) for phase in PHASES)
    assert all(not torch.equal(words[a], words[b]) for a, b in pairwise([*PHASES, "prompt"]))
    # The first token is chosen from the prompt alone.
    assert torch.equal(words["generated"][:, 0], base[:, 0])
    assert torch.equal(words["prompt"][:, 0], words["both"][:, 0])


PAIRS = [(family, gate) for gate in GATES for family in (FOUR if len(gate) == 1 and "phase" in gate else ("llama",))]


@pytest.mark.parametrize(("family", "gate"), PAIRS, ids=str)
def test_caches_and_chunks_make_no_difference(family, ids, gate):
    model = tiny_model(family)
    base = scored(model, padded(ids), MASK)
    with steer(model, push(**gate)):
        expected = scored(model, padded(ids), MASK)
        for options in WAYS:
            close(scored(model, padded(ids), MASK, **options), expected)
    assert not torch.allclose(expected, base, atol=1e-2)


@pytest.mark.parametrize(("family", "gate"), PAIRS, ids=str)
def test_a_row_alone_is_the_row_in_a_padded_batch(family, ids, gate):
    model = tiny_model(family)
    with steer(model, push(**gate)):
        batch = scored(model, padded(ids), MASK)
        for row in range(3):
            close(scored(model, ids[row : row + 1, MASK[row].bool()]), batch[row : row + 1])


@pytest.mark.parametrize("phase", PHASES)
def test_a_prompt_of_one_token_is_a_prompt(model, ids, phase):
    one = ids[:, :1]
    with steer(model, push(phase=phase)):
        words = scored(model, one)
        close(scored(model, one, use_cache=False), words)
    with steer(model, push()):
        everywhere = scored(model, one)
    base = scored(model, one)
    assert not torch.allclose(words, base, atol=1e-2)
    close(words[:, 0], (base if phase == "generated" else everywhere)[:, 0])


def test_several_new_tokens_at_once_are_still_generated():
    model = tiny_model("llama")
    ids = torch.tensor([[5, 6, 7, 5, 6, 7, 5, 6]])
    for phase in PHASES:
        with steer(model, push(phase=phase)):
            assert torch.equal(answer(model, ids, prompt_lookup_num_tokens=3), answer(model, ids))


def test_going_on_from_a_cache_keeps_the_prompt(model, ids):
    for phase in ("prompt", "generated"):
        with steer(model, push(phase=phase)):
            cache = DynamicCache(config=model.config)
            logits(model, ids[:, :4], **{cache_name(model): cache})
            expected = answer(model, ids)
            assert torch.equal(answer(model, ids, **{cache_name(model): cache}), expected)


def test_a_generate_that_calls_generate_keeps_the_first_ones_prompt(ids):
    model = tiny_model("llama")
    plain = model.generate
    with steer(model, push(phase="generated")):
        expected = answer(model, ids)

    def in_halves(inputs, **options):
        if options["max_new_tokens"] < STEPS:
            return plain(inputs, **options)
        half = {**options, "max_new_tokens": STEPS // 2, "min_new_tokens": STEPS // 2}
        first = model.generate(inputs, **half)
        return model.generate(first, **{**half, "attention_mask": torch.ones_like(first)})

    model.generate = in_halves
    with steer(model, push(phase="generated")):
        assert torch.equal(answer(model, ids), expected)


def test_prompts_given_as_embeddings_are_prompts(model, ids):
    embeds = model.get_input_embeddings()(ids).detach()
    options = {"max_new_tokens": STEPS, "min_new_tokens": STEPS, "do_sample": False}
    for phase in PHASES:
        with steer(model, push(phase=phase)):
            assert torch.equal(model.generate(inputs_embeds=embeds, **options), answer(model, ids))


@pytest.mark.parametrize("side", ["left", "right"])
def test_pads_are_never_touched(model, ids, side):
    mask = MASK if side == "left" else MASK.flip(1)
    moved = shift(model, ids, push(), attention_mask=mask)
    assert bool((moved[mask == 0] == 0).all())
    assert bool((moved[mask == 1].norm(dim=-1) > 7).all())


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize(
    ("positions", "expected"),
    [((0, 2), [0, 1]), ((-2, None), [2, 3]), ((1, -1), [1, 2]), ((-9, 1), [0]), ((None, None), [0, 1, 2, 3])],
)
def test_positions_count_from_the_true_ends(side, positions, expected, ids):
    model = tiny_model("llama")
    mask = MASK if side == "left" else MASK.flip(1)
    moved = shift(model, ids, push(positions=positions), attention_mask=mask)[0].norm(dim=-1) > 1
    offset = 3 if side == "left" else 0
    assert moved.nonzero().flatten().tolist() == [offset + place for place in expected]


def test_a_schedule_follows_the_steps_of_decoding(ids):
    model = tiny_model("llama")
    layout, seen = layout_of(model), []
    unit = vector() / vector().norm()
    with (
        steer(model, push(schedule=Schedule.ramp(4))),
        layout.watch(MIDDLE, lambda value, *_: seen.append(value)),
    ):
        words = answer(model, ids, use_cache=False)
    plain = read_site(model, torch.cat([ids, words[:, :-1]], dim=1), MIDDLE)
    strengths = ((seen[-1] - plain) @ unit)[0]
    expected = torch.tensor([8.0] * 7 + [6.0, 4.0, 2.0])
    torch.testing.assert_close(strengths, expected, rtol=0, atol=1e-4)


def test_a_second_generate_starts_a_new_prompt(model, ids):
    prompts = [ids, torch.cat([ids, ids], dim=1), ids[:, :2], ids]
    expected = []
    for prompt in prompts:
        with steer(model, push(phase="generated")):
            expected.append(scored(model, prompt))
    with steer(model, push(phase="generated")):
        for prompt, alone in zip(prompts, expected, strict=True):
            close(scored(model, prompt), alone)
        beside = logits(model, ids)
    # Outside generate, everything is prompt.
    assert torch.equal(beside, logits(model, ids))


def test_without_a_mask_no_token_is_a_pad(ids):
    model = tiny_model("llama")
    moved = shift(model, padded(ids), push())
    assert bool((moved.norm(dim=-1) > 7).all())


# Rows


def test_each_row_has_its_own_language(model, ids):
    prompts = ids[:1].expand(3, -1)
    choices = [push(0), [push(1, 6.0), push(2, 3.0, site=Site(0, "mlp_out"))], None]
    with steer(model, rows=choices):
        together = scored(model, prompts)
        close(scored(model, prompts, use_cache=False), together)
    for row, choice in enumerate(choices):
        with steer(model, choice or ()):
            close(scored(model, prompts[:1]), together[row : row + 1])
    for one, two in ((0, 1), (0, 2), (1, 2)):
        assert not torch.allclose(together[one], together[two], atol=1e-2)


def test_rows_of_different_lengths_and_strengths_match_single_runs(model, ids):
    choices = [push(strength=4.0, phase="prompt"), push(1, 8.0, phase="generated"), push(strength=-8.0)]
    with steer(model, rows=choices):
        together = scored(model, padded(ids), MASK)
    for row, choice in enumerate(choices):
        with steer(model, choice):
            close(scored(model, ids[row : row + 1, MASK[row].bool()]), together[row : row + 1])


@pytest.mark.parametrize(
    "options",
    [
        {"num_beams": 2},
        {"num_beams": 4, "num_return_sequences": 2},
        {"do_sample": True, "top_k": 1, "num_return_sequences": 2},
    ],
    ids=str,
)
def test_beams_and_return_sequences_follow_their_row(model, ids, options):
    choices = [push(0), push(1), None]
    each = options.get("num_return_sequences", 1)
    with steer(model, rows=choices):
        together = answer(model, padded(ids), MASK, **options)
    for row, choice in enumerate(choices):
        with steer(model, choice or ()):
            alone = answer(model, ids[row : row + 1, MASK[row].bool()], **options)
        assert torch.equal(alone, together[each * row : each * (row + 1)])
    assert not torch.equal(together, answer(model, padded(ids), MASK, **options))


def test_a_gate_can_name_rows(ids):
    model = tiny_model("llama")
    moved = shift(model, ids, push(rows=(0, 2))).norm(dim=-1)
    assert (moved > 1).all(dim=1).tolist() == [True, False, True]
    assert (shift(model, ids, push(rows=(0,))).norm(dim=-1) > 1).all(dim=1).tolist() == [True, False, False]


def test_rows_that_do_not_fit_are_refused(ids):
    model = tiny_model("llama")
    for arguments in ({"rows": [push(), None]}, {"operations": push(rows=(3,))}):
        with pytest.raises(ArtifactError, match="batch of 3 rows"), steer(model, **arguments):
            logits(model, ids)
    for arguments, word in (
        ({"rows": [push(rows=(0,))]}, "names rows too"),
        ({"operations": push(rows=(2,)), "rows": [None, push()]}, "names row 2"),
        ({"rows": []}, "empty"),
    ):
        with pytest.raises(ArtifactError, match=word), steer(model, **arguments):
            pass


# Special tokens


def test_special_tokens_are_left_alone_where_the_tokenizer_is_known(tokenizer):
    model = tiny_model("llama")
    ids = torch.tensor([[1, 50, 2, 60, 70]])
    seen = {}
    for name, gate in (("auto", Gate()), ("never", Gate(skip_special=False)), ("always", Gate(skip_special=True))):
        moved = shift(model, ids, Operation(MIDDLE, "add", vector(), gate=gate), tokenizer)[0].norm(dim=-1) > 1
        seen[name] = moved.tolist()
    skipping = [False, True, False, True, True]
    assert seen == {"auto": skipping, "never": [True] * 5, "always": skipping}


def test_all_that_begins_a_text_is_left_alone():
    model, tokenizer = tiny_model("llama"), beginning("<s> <sop> $A", ["<s>", "<sop>"], ["<sop>"])
    ids = torch.tensor([tokenize_prompt(tokenizer, "ab")])
    # No name lists <s>: the tokenizer's own ids say that it begins a text.
    assert 1 not in tokenizer.all_special_ids and ids[0, 0] == 1
    assert (shift(model, ids, push(), tokenizer)[0].norm(dim=-1) > 1).tolist() == [False, False, True, True]


def test_tokens_a_chat_template_needs_are_special_too(tokenizer):
    tokenizer.add_special_tokens({"additional_special_tokens": ["<turn>"]})
    model = tiny_model("llama")
    turn = tokenizer.convert_tokens_to_ids("<turn>")
    ids = torch.tensor([[turn, 50]])
    base = read_site(model, ids, MIDDLE)
    with steer(model, push(), tokenizer=tokenizer):
        assert (read_site(model, ids, MIDDLE) != base).any(dim=-1).tolist() == [[False, True]]


def test_skipping_special_tokens_makes_no_difference_to_caches(model, ids, tokenizer):
    prompts = torch.cat([torch.ones(3, 1, dtype=torch.int64), padded(ids)], dim=1)
    mask = torch.ones_like(prompts)
    with steer(model, push(), tokenizer=tokenizer):
        words = answer(model, prompts, mask)
        for options in WAYS:
            assert torch.equal(answer(model, prompts, mask, **options), words)
        spared = logits(model, prompts)
    with steer(model, push()):
        assert not torch.allclose(logits(model, prompts), spared, atol=1e-2)


def test_skipping_special_tokens_needs_a_tokenizer():
    with pytest.raises(ArtifactError, match="tokenizer"), steer(tiny_model("llama"), push(skip_special=True)):
        pass
