"""Activation patching: exact ends, planted carriers, position groups, and controls."""

import math

import pytest
import torch
from conftest import tiny_model, tiny_tokenizer

from babelscope import Site, load_corpus
from babelscope.errors import CorpusError, MeasurementError, SiteError
from babelscope.models import layout_of
from babelscope.probes.circuits.answer_patching import SMALLEST_GAP, patch_effects
from babelscope.probes.circuits.donors import Donor, alike_donors, donors_of, prompt_of
from babelscope.probes.circuits.patching import hooked_forward, logit_difference
from babelscope.probes.circuits.prompt_pairs import PatchPair, TokenPair, groups_of, read_pairs, translation_pairs

PAIRS = [
    PatchPair("the cat is", "the dog is", "x", "y"),
    PatchPair("one cow was", "one pig was", "a", "b"),
    PatchPair("his hen can", "his fox can", "m", "n"),
    PatchPair("her bee may", "her ant may", "q", "r"),
]


def effect(table, layer, group):
    return next(one for one in table.effects if (one.layer, one.group) == (layer, group))


def test_groups_of_positions_by_hand():
    pair = TokenPair((1, 5, 6, 7, 8), (1, 5, 9, 7, 8), 3, 4)
    assert groups_of(pair) == {
        "before": ([0, 1],) * 2,
        "changed": ([2],) * 2,
        "between": ([3],) * 2,
        "last": ([4],) * 2,
    }
    assert groups_of(TokenPair((1, 5), (1, 6, 7), 3, 4)) == {"last": ([1], [2])}
    assert groups_of(TokenPair((1, 5, 6), (1, 5, 7), 3, 4)) == {"before": ([0, 1],) * 2, "last": ([2],) * 2}


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2", "mixtral"])
@pytest.mark.parametrize("direction", ["denoise", "noise"])
def test_the_ends_are_exact(family, direction):
    model, tokenizer = tiny_model(family), tiny_tokenizer()
    table = patch_effects(model, tokenizer, PAIRS, direction=direction, resamples=50)
    # After the last layer only the last position is read; into the first, the changed tokens are all that differs.
    assert effect(table, 2, "last").effect == pytest.approx(1.0, abs=1e-4)
    assert effect(table, 2, "changed").effect == pytest.approx(0.0, abs=1e-4)
    assert effect(table, 0, "before").effect == pytest.approx(0.0, abs=1e-4)
    start = patch_effects(model, tokenizer, PAIRS, at="resid_in", direction=direction, layers=[0], resamples=50)
    assert effect(start, 0, "changed").effect == pytest.approx(1.0, abs=1e-4)
    assert effect(start, 0, "between").effect == pytest.approx(0.0, abs=1e-4)


def test_effects_equal_a_patch_by_hand():
    model, tokenizer = tiny_model("llama", dtype=torch.float64), tiny_tokenizer()
    layout, pairs = layout_of(model), read_pairs(tokenizer, PAIRS)
    moved, gaps, used = 0.0, 0.0, 0
    forward = hooked_forward(layout)
    for pair in pairs:
        clean, corrupt = (torch.tensor([ids]) for ids in pair[:2])
        ones, n, kept = torch.ones_like(clean), [clean.shape[1]], []

        def keep(value, kept=kept):
            kept.append(value.clone())

        def change(value, kept=kept):
            return torch.cat([value[:, :-1], kept[0][:, -1:]], dim=1)

        high = logit_difference(forward(clean, ones, n, {Site(1, "attn_out"): keep}), [pair])
        low = logit_difference(forward(corrupt, ones, n, {}), [pair])
        patched = logit_difference(forward(corrupt, ones, n, {Site(1, "attn_out"): change}), [pair])
        used += abs(float(high - low)) >= SMALLEST_GAP
        sign = float(torch.sign(high - low)) * (abs(float(high - low)) >= SMALLEST_GAP)
        moved, gaps = moved + sign * float(patched - low), gaps + sign * float(high - low)
    table = patch_effects(model, tokenizer, PAIRS, at="attn_out", layers=[1], resamples=50)
    assert table.pairs == used >= 3 and table.left_out == 4 - used
    assert effect(table, 1, "last").effect == pytest.approx(moved / gaps, abs=1e-9)


def test_intervals_and_controls_are_reported():
    table = patch_effects(tiny_model("llama"), tiny_tokenizer(), PAIRS, resamples=200)
    for one in table.effects:
        assert one.low - 1e-9 <= one.effect <= one.high + 1e-9
        assert one.pairs == table.pairs >= 3
    last = effect(table, 2, "last")
    assert math.isfinite(last.control) and abs(last.control - last.effect) > 1e-3
    row = table.rows()[-1]
    assert row.site == "2.resid_out" and row.null == last.null and row.n == table.pairs
    assert "another token" in row.note and last.null_low - 1e-9 <= last.null <= last.null_high + 1e-9


@pytest.mark.parametrize("direction", ["denoise", "noise"])
def test_the_null_is_of_the_side_that_is_patched_into(direction):
    """After the last layer the last position decides alone: the null is another prompt's own LD of the same side."""
    model, tokenizer = tiny_model("llama", dtype=torch.float64), tiny_tokenizer()
    shared = [PatchPair(pair.clean, pair.corrupt, "x", "y") for pair in PAIRS]
    tokens, forward = read_pairs(tokenizer, shared), hooked_forward(layout_of(model))
    taker = "corrupt" if direction == "denoise" else "clean"
    donors = alike_donors(tokens, taker, "last", 0)
    assert sorted(donor.row for donor in donors) == [0, 1, 2, 3] and {donor.kind for donor in donors} == {taker}
    own = {
        kind: [
            float(logit_difference(forward(ids, torch.ones_like(ids), [ids.shape[1]], {}), [pair]))
            for pair in tokens
            for ids in [torch.tensor([getattr(pair, kind)])]
        ]
        for kind in ("clean", "corrupt")
    }
    moved, gaps = 0.0, 0.0
    for row, donor in enumerate(donors):
        gap = own["clean"][row] - own["corrupt"][row]
        if abs(gap) >= SMALLEST_GAP:
            change = own[taker][donor.row] - own[taker][row]
            moved += math.copysign(1, gap) * (change if direction == "denoise" else -change)
            gaps += abs(gap)
    last = effect(patch_effects(model, tokenizer, shared, direction=direction, resamples=20), 2, "last")
    assert last.null == pytest.approx(moved / gaps, abs=1e-9) and abs(last.null - last.control) > 1e-3
    assert alike_donors([tokens[0], tokens[0]], taker, "last", 0) == [None, None]


@pytest.mark.parametrize("direction", ["denoise", "noise"])
def test_the_control_carries_another_answer_also_where_all_pairs_share_theirs(direction):
    """After the last layer the last position decides alone, so both numbers are known: 1, and the donors' own LD."""
    model, tokenizer = tiny_model("llama", dtype=torch.float64), tiny_tokenizer()
    shared = [PatchPair(pair.clean, pair.corrupt, "x", "y") for pair in PAIRS]
    tokens, forward = read_pairs(tokenizer, shared), hooked_forward(layout_of(model))
    giver = "clean" if direction == "denoise" else "corrupt"
    donors = donors_of(tokens, giver, "last", 0)
    difference = {
        kind: [
            float(logit_difference(forward(ids, torch.ones_like(ids), [ids.shape[1]], {}), [pair]))
            for pair in tokens
            for ids in [torch.tensor([getattr(pair, kind)])]
        ]
        for kind in ("clean", "corrupt")
    }
    taker, moved, gaps = difference["corrupt" if giver == "clean" else "clean"], 0.0, 0.0
    sign = 1 if giver == "clean" else -1
    for row, donor in enumerate(donors):
        assert donor.row != row and donor.kind != giver
        gap = difference["clean"][row] - difference["corrupt"][row]
        if abs(gap) >= SMALLEST_GAP:
            moved += math.copysign(1, gap) * sign * (difference[donor.kind][donor.row] - taker[row])
            gaps += abs(gap)
    last = effect(patch_effects(model, tokenizer, shared, direction=direction, resamples=20), 2, "last")
    assert last.effect == pytest.approx(1.0, abs=1e-9)
    assert last.control == pytest.approx(moved / gaps, abs=1e-9) and abs(last.control - 1) > 1e-3


def test_the_control_is_of_the_same_kind_where_answers_differ_and_as_long():
    pairs = [
        TokenPair((1, 5, 6), (1, 7, 6), 20, 21),
        TokenPair((1, 8), (1, 9), 22, 23),
        TokenPair((1, 4, 6), (1, 3, 6), 24, 25),
    ]
    assert donors_of(pairs, "clean", "last", 0)[0] == Donor(2, "clean")
    assert donors_of(pairs, "corrupt", "last", 0)[2] == Donor(0, "corrupt")
    changed = donors_of(pairs, "clean", "changed", 3)
    assert changed[1] is None  # its prompts differ at the last position only
    for row, donor in ((0, changed[0]), (2, changed[2])):
        assert prompt_of(pairs, donor)[:2] not in (pairs[row].clean[:2], pairs[row].corrupt[:2])


def test_prompts_that_begin_alike_have_no_control_before_the_change():
    alike = [
        PatchPair(f"the {word} is", f"the {other} is", a, b)
        for word, other, a, b in (("cat", "dog", "x", "y"), ("hen", "fox", "a", "b"), ("bee", "ant", "m", "n"))
    ]
    table = patch_effects(tiny_model("llama"), tiny_tokenizer(), alike, resamples=20)
    before = effect(table, 1, "before")
    assert before.effect == pytest.approx(0.0, abs=1e-4) and math.isnan(before.control) and before.controlled == 0
    assert effect(table, 1, "changed").controlled == effect(table, 1, "changed").pairs


def test_a_pair_given_again_is_no_control_of_itself():
    twice = [PAIRS[0], PAIRS[0]]
    with pytest.raises(MeasurementError, match="no other prompt to patch from") as error:
        patch_effects(tiny_model("llama"), tiny_tokenizer(), twice)
    assert "\n" not in str(error.value)
    tokens = read_pairs(tiny_tokenizer(), [*twice, PAIRS[1]])
    assert [donor.row for donor in donors_of(tokens, "clean", "last", 0)[:2]] == [2, 2]


def test_translations_are_patched_at_the_last_position():
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    texts = load_corpus("reference", ["en", "id"], split="valid").head(8)
    pairs = translation_pairs(tokenizer, texts, "en", "id", pairs=5)
    assert len(pairs) == 5 and all(pair.clean[0] == 1 and pair.answer != pair.foil for pair in pairs)
    table = patch_effects(model, tokenizer, pairs, resamples=20)
    unlike = [pair for pair in pairs if len(pair.clean) != len(pair.corrupt)]
    assert unlike and effect(table, 2, "last").effect == pytest.approx(1.0, abs=1e-4)
    assert effect(table, 2, "last").pairs == table.pairs


def test_what_can_not_be_patched_is_refused():
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    with pytest.raises(CorpusError, match="same token"):
        patch_effects(model, tokenizer, [PatchPair("a", "b", "xy", "xz")] * 2)
    with pytest.raises(CorpusError, match="at least two"):
        patch_effects(model, tokenizer, PAIRS[:1])
    with pytest.raises(MeasurementError, match="tells them apart"):
        patch_effects(model, tokenizer, [PatchPair("same", "same", "x", "y")] * 2)
    with pytest.raises(SiteError, match="layers 0–2"):
        patch_effects(model, tokenizer, PAIRS, layers=[3])
    with pytest.raises(CorpusError, match="parallel"):
        translation_pairs(tokenizer, {"en": ["a"], "fi": ["b", "c"]}, "en", "fi")
