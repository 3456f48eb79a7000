"""Replaced vocabularies: what stays, what is trained, where rows come from, and the way back."""

import json
from collections import Counter

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast
from vocabulary_cases import KINDS, SPECIAL, every_line, ids_of, lines, model_for, tokenizer_of

from babelscope import VocabularyPack, replace_vocabulary
from babelscope.corpus import as_corpus
from babelscope.errors import CorpusError, MeasurementError, PrerequisiteError
from babelscope.vocabulary.initial_rows import INITS, byte_edges
from babelscope.vocabulary.replacement import replaced_entries
from babelscope.vocabulary.row_packs import pack_of
from babelscope.vocabulary.tokenizer_form import TokenizerForm, encoded_in_parts
from babelscope.vocabulary.trained_tokenizer import train_bpe, train_form, with_trained

TARGETS = ("cy", "tt")
SIZE = 640


def target_lines():
    return lines(*TARGETS, count=150)


@pytest.fixture(scope="module", params=KINDS)
def case(request):
    tokenizer = tokenizer_of(request.param)
    model = model_for(tokenizer)
    return model, tokenizer, replace_vocabulary(model, tokenizer, target_lines(), size=SIZE)


def test_every_text_is_read_and_written_back_and_no_text_becomes_a_control_token(case):
    _, tokenizer, pack = case
    unknown = tokenizer.unk_token
    for found in every_line().values():
        for line in [*found, "a\tb\n\n c  d", "🙂 Ω"]:
            before, after = (
                one.decode(one(line, add_special_tokens=False).input_ids) for one in (tokenizer, pack.tokenizer)
            )
            assert after == before or unknown in before
    controls = {pack.tokenizer.convert_tokens_to_ids(name) for name in (*SPECIAL, "<|turn|>")}
    text = as_corpus({"cy": ["a <s> b </s>", "<|turn|><pad>"]})
    assert not controls - {pack.tokenizer.unk_token_id} & {
        i for one in encoded_in_parts(pack.tokenizer, text) for i in one.ids
    }


def test_it_is_as_large_as_asked_and_writes_its_language_in_fewer_tokens(case):
    model, tokenizer, pack = case
    form = TokenizerForm.of(pack.tokenizer)
    assert sorted(form.entries) == list(range(SIZE)) and len(pack.source) == SIZE + 5
    tokens = [
        sum(len(one(line, add_special_tokens=False).input_ids) for found in target_lines().values() for line in found)
        for one in (tokenizer, pack.tokenizer)
    ]
    if form.byte_level:  # in the other two kinds some letters of these languages were bytes, or unknown, before
        assert tokens == pack.parameters["tokens"]
        assert tokens[1] < 0.6 * tokens[0]
    again = replace_vocabulary(model, tokenizer, target_lines(), size=SIZE)
    assert TokenizerForm.of(again.tokenizer).ids.keys() == form.ids.keys()


def test_special_tokens_template_and_settings_stay(case):
    model, tokenizer, pack = case
    new = pack.tokenizer
    assert new.chat_template == tokenizer.chat_template and new.all_special_tokens == tokenizer.all_special_tokens
    assert new("bore da").input_ids[0] == new.bos_token_id
    turn = [{"role": "user", "content": "bore da"}]
    rendered = new.apply_chat_template(turn, return_dict=False)
    assert new.decode(rendered) == tokenizer.apply_chat_template(turn, tokenize=False)
    before = model.generation_config.eos_token_id
    with pack.applied(model):
        assert [new.decode([i]) for i in model.generation_config.eos_token_id] == [
            tokenizer.decode([i]) for i in before
        ]
        assert new.decode([model.config.eos_token_id]) == tokenizer.decode([2])


@pytest.mark.parametrize("family", ["gemma3_text", "llama", "phi"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_shared_rows_keep_their_bits_and_all_go_back(family, dtype, tmp_path):
    tokenizer = tokenizer_of("byte-level")
    model = model_for(tokenizer, family, dtype=dtype)
    pack = replace_vocabulary(model, tokenizer, target_lines(), size=SIZE)
    again = VocabularyPack.load(pack.save(tmp_path / "pack"))
    assert again.digest == pack.digest and again.operation == "replace"
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    table, old, line = (
        model.get_input_embeddings().weight.detach().clone(),
        tokenizer.get_vocab(),
        target_lines()["tt"][0],
    )
    with again.applied(model):
        live, shared = model.get_input_embeddings().weight, 0
        for entry, index in again.tokenizer.get_vocab().items():
            if entry in old:
                assert torch.equal(live[index], table[old[entry]])
                shared += 1
        assert shared == again.parameters["shared"] > len(SPECIAL) + 256
        new = (again.source < 0).nonzero()[:, 0]
        assert torch.equal(live[new], again.rows.to(dtype)) and len(new) == SIZE - shared
        ids = ids_of(again.tokenizer, line)
        assert torch.isfinite(model(ids, labels=ids).loss)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in weights.items())


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_vocabulary_changes_no_bit(kind):
    tokenizer = tokenizer_of(kind)
    model = model_for(tokenizer, "phi")
    pack = replace_vocabulary(model, tokenizer, target_lines(), replacement=tokenizer)
    assert torch.equal(pack.source, torch.arange(len(tokenizer) + 5)) and not pack.n_new
    ids = ids_of(tokenizer, target_lines()["cy"][0])
    expected = model(ids).logits
    with pack.applied(model):
        assert torch.equal(ids_of(pack.tokenizer, target_lines()["cy"][0]), ids)
        assert torch.equal(model(ids).logits, expected)


def test_a_finished_tokenizer_gets_rows_by_its_own_ids():
    tokenizer = tokenizer_of("byte-level")
    model = model_for(tokenizer)
    first = replace_vocabulary(model, tokenizer, target_lines(), size=SIZE)
    pack = replace_vocabulary(model, tokenizer, target_lines(), replacement=first.tokenizer)
    assert torch.equal(pack.source, first.source) and pack.tokenizer_hash == first.tokenizer_hash
    assert torch.equal(pack.rows, first.rows)


@pytest.fixture(scope="module")
def entries():
    tokenizer, corpus = tokenizer_of("byte-level"), as_corpus(target_lines())
    form = TokenizerForm.of(tokenizer)
    trained = train_form(form, tokenizer, corpus, form.indispensable(tokenizer), size=SIZE, min_count=5)
    return replaced_entries(tokenizer, form, trained, corpus, rows=len(tokenizer), min_count=5)


def test_alignment_takes_every_old_token_that_shares_a_byte_with_a_place(entries):
    counts = {index: Counter() for index in entries.ids}
    for before, after in zip(
        *(encoded_in_parts(one, entries.corpus) for one in (entries.tokenizer, entries.successor)), strict=True
    ):
        owner = [part for part, token in zip(before.ids, before.encoding.tokens, strict=True) for _ in token]
        # Which token, by its number in the line, each byte belongs to.
        number = [place for place, token in enumerate(before.encoding.tokens) for _ in token]
        start = 0
        for index, token in zip(after.ids, after.encoding.tokens, strict=True):
            parts = {number[at]: owner[at] for at in range(start, start + len(token))}
            start += len(token)
            for part in parts.values():
                if index in counts:
                    counts[index][part] += 1 / len(parts)
        assert start == len(owner) == byte_edges(entries.form, before)[-1]
    straddled = 0
    for index, mixture, leaves in zip(entries.ids, INITS["align"](entries), entries.leaves, strict=True):
        weights = counts[index] if counts[index] else leaves
        total = sum(weights.values())
        found = dict(zip(mixture.ids.tolist(), mixture.weights.tolist(), strict=True))
        assert found == pytest.approx({part: weight / total for part, weight in weights.items()})
        straddled += set(found) != set(leaves)
    assert straddled


def test_merge_halves_from_shared_entries_upwards(entries):
    table = torch.randn(len(entries.tokenizer), 5, generator=torch.Generator().manual_seed(0)).double()
    rows = dict(entries.form.ids)
    values = {entry: table[index].numpy() for entry, index in rows.items()}
    for left, right in entries.successor_form.merges:
        values.setdefault(left + right, (values[left] + values[right]) / 2)
    for entry, mixture in zip(entries.entries, INITS["merge"](entries), strict=True):
        np.testing.assert_allclose(mixture.weights.numpy() @ table[mixture.ids].numpy(), values[entry])


@pytest.mark.parametrize("init", list(INITS))
def test_every_way_to_begin_gives_finite_rows_and_again_the_same(init, entries):
    model = model_for(entries.tokenizer, padding=0)
    packs = [pack_of(model, entries, "replace", init, seed=seed) for seed in (0, 0, 1)]
    assert torch.isfinite(packs[0].rows).all() and packs[0].n_new > 100
    assert packs[0].digest == packs[1].digest
    assert (packs[2].digest != packs[0].digest) == (init in ("random", "script"))


def test_a_unigram_has_no_pairs_to_merge():
    tokenizer = tokenizer_of("unigram")
    with pytest.raises(MeasurementError, match="'merge' came for a Unigram"):
        replace_vocabulary(model_for(tokenizer), tokenizer, target_lines(), init="merge")


def test_a_merge_that_spells_an_added_or_byte_token_is_left_out():
    form = TokenizerForm.of(tokenizer_of("byte fallback"))
    trained = train_bpe(Counter({"<0x41>": 9, "<s>": 9, "<s": 50, "ab": 5}), most=400, min_count=2)
    assert ("<s", ">") in trained.merges
    added = {token["content"] for token in form.state["added_tokens"]}
    found = with_trained(form, trained, {*added, *form.bytes}, 40)
    spelt = {left + right for left, right in found.merges}
    assert spelt >= {"<s", "ab"} and not spelt & {"<s>", "<0x41>"}


@pytest.mark.parametrize(
    ("words", "error", "says"),
    [
        ({"init": "best"}, MeasurementError, "init 'best' came; expected one of random"),
        ({"size": 0}, MeasurementError, "size 0"),
        ({"min_count": 0}, MeasurementError, "min_count 0"),
        ({"size": 100}, MeasurementError, "size 100 came; 26. entries stay in any case"),
        ({"size": 10**6}, MeasurementError, "size 1000000 came; the text gives"),
        ({"size": 300, "replacement": "byte-level"}, MeasurementError, "leave out the size"),
        ({"texts": {"cy": [""]}}, CorpusError, "has no text"),
        (
            {"replacement": "unigram"},
            PrerequisiteError,
            "of the kind Unigram came for a tokenizer of the kind BPE, byte",
        ),
        ({"replacement": "byte fallback"}, PrerequisiteError, "of the kind BPE, with byte fallback came"),
        ({"replacement": "bare"}, PrerequisiteError, "without '<|turn|>' came"),
    ],
)
def test_bad_requests_are_refused_in_one_line(words, error, says):
    tokenizer = tokenizer_of("byte-level")
    words = {"texts": lines("cy", count=30), **words}
    if words.get("replacement") == "bare":
        state = TokenizerForm.of(tokenizer).state
        backend = Tokenizer.from_str(json.dumps({**state, "added_tokens": state["added_tokens"][:-1]}))
        words["replacement"] = PreTrainedTokenizerFast(tokenizer_object=backend)
    elif "replacement" in words:
        words["replacement"] = tokenizer_of(words["replacement"])
    with pytest.raises(error, match=says) as caught:
        replace_vocabulary(model_for(tokenizer), tokenizer, **words)
    assert "\n" not in str(caught.value)


def test_tokens_without_a_row_are_refused():
    tokenizer = tokenizer_of("byte-level")
    with pytest.raises(PrerequisiteError, match="expected a row for each"):
        replace_vocabulary(model_for(tokenizer, padding=-3), tokenizer, lines("cy", count=30))
