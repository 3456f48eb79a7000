"""Tokenizer cost, scripts, and the training shares read from merges."""

import json
from collections import Counter

import numpy as np
import pytest
import scipy.stats
from conftest import tiny_tokenizer
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from babelscope import load_corpus
from babelscope.corpus import Document, as_corpus
from babelscope.errors import CorpusError, LanguageError, PrerequisiteError
from babelscope.vocabulary import (
    fit_shares,
    infer_training_shares,
    replay_merges,
    token_costs,
    vocabulary_by_script,
)
from babelscope.vocabulary.entry_scripts import script_of
from babelscope.vocabulary.merge_lists import read_merges
from babelscope.vocabulary.premium import pieces_by_word, word_spans

SHARES = {"en": 0.6, "fi": 0.3, "eu": 0.1}


def sentences(seed, n, letters="abcdefghijklmnop"):
    """Sentences of an invented language: 300 words of its own, used by Zipf's law."""
    rng = np.random.default_rng(seed)
    words = ["".join(rng.choice(list(letters), rng.integers(2, 8))) for _ in range(300)]
    odds = 1 / np.arange(1, 301)
    picks = rng.choice(words, size=(n, 8), p=odds / odds.sum())
    return [" ".join(row) for row in picks]


def train(lines, size, initial=None):
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = initial or pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        lines, trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend)


@pytest.fixture(scope="module")
def mixed():
    """A tokenizer trained on 60, 30 and 10 % of three invented languages, and other text of each."""
    texts = {tag: sentences(seed, 6000) for seed, tag in enumerate(SHARES)}
    lines = []
    for tag, share in SHARES.items():
        room = 100_000 * share
        for line in texts[tag][3000:]:
            room -= len(line)
            if room < 0:
                break
            lines.append(line)
    return train(lines, 256 + 400), as_corpus({tag: found[:1500] for tag, found in texts.items()})


def first_merges(tokenizer, count):
    """The same tokenizer with its first merges only."""
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    state["model"]["merges"] = state["model"]["merges"][:count]
    return Tokenizer.from_str(json.dumps(state))


def test_replayed_pair_counts_equal_those_of_a_tokenizer_with_fewer_merges(mixed):
    tokenizer, corpus = mixed
    corpus = corpus.head(60)
    history = replay_merges(tokenizer, corpus, merges=41)
    counts = history.start.copy()
    for change in history.changes[:40]:
        np.add.at(counts, (change.pair, change.language), change.delta)
    cut = first_merges(tokenizer, 40)
    for k, documents in enumerate(corpus.values()):
        pairs = Counter()
        for document in documents:
            for word, _ in cut.pre_tokenizer.pre_tokenize_str(document.text):
                tokens = [token.value for token in cut.model.tokenize(word)]
                pairs.update(zip(tokens, tokens[1:], strict=False))
        assert sorted(pairs.values()) == sorted(counts[counts[:, k] > 0, k].astype(int).tolist())
        assert counts[history.merged[40], k] == pairs[read_merges(tokenizer.backend_tokenizer)[40]]


def test_overlapping_pairs_merge_from_the_left():
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.BPE({"a": 0, "b": 1, "aa": 2, "aab": 3}, [("a", "a"), ("aa", "b")]))
    )
    history = replay_merges(tokenizer, as_corpus({"en": ["aaab"], "fi": ["aaaaa"]}))
    first, second = history.changes
    after = history.start.copy()
    np.add.at(after, (first.pair, first.language), first.delta)
    # aaab: aa aa ab, then aa·a, a·b; aaaaa: four times aa, then aa·aa, aa·a
    assert history.start[history.merged[0]].tolist() == [2.0, 4.0]
    assert after[history.merged[0]].tolist() == [0.0, 0.0]
    assert after[history.merged[1]].tolist() == [0.0, 0.0]
    assert after.sum(axis=0).tolist() == [2.0, 2.0]
    assert len(second.pair) == 0


def test_planted_shares_are_read_from_the_merges(mixed):
    tokenizer, corpus = mixed
    found = infer_training_shares(tokenizer, corpus, resamples=3, seed=1)
    assert found.share.sum() == pytest.approx(1.0)
    assert np.abs(found.share - list(SHARES.values())).max() < 0.03
    assert found.decoy < 0.05
    assert (found.low <= found.high).all() and (found.low > 0.05).all()
    assert [row.language for row in found.rows()] == list(SHARES)


def test_shares_do_not_depend_on_the_order_of_the_languages(mixed):
    tokenizer, corpus = mixed
    forward = infer_training_shares(tokenizer, corpus, decoy=False)
    back = infer_training_shares(tokenizer, corpus.only(list(corpus)[::-1]), decoy=False)
    assert np.allclose(forward.share, back.share[::-1], atol=1e-6)


def test_text_that_the_tokenizer_was_trained_on_explains_every_merge():
    lines = sentences(5, 400)
    history = replay_merges(train(lines, 300), as_corpus({"en": lines, "fi": sentences(6, 400)}))
    fit = fit_shares(history)
    assert fit.violation < 1e-9 and fit.converged
    assert fit.share.tolist() == pytest.approx([1.0, 0.0], abs=0.05)


def test_the_reference_tokenizer_ranks_its_underserved_languages_last(reference):
    found = infer_training_shares(reference[1], load_corpus("reference", split="train"), merges=1000, decoy=False)
    share = dict(zip(found.languages, found.fit.share.tolist(), strict=True))
    assert max(share[tag] for tag in ("eu", "cy", "tt")) < min(
        share[tag] for tag in share if tag not in ("eu", "cy", "tt")
    )


def test_a_byte_tokenizer_costs_the_bytes():
    corpus = load_corpus("reference", ["en", "hi", "ja"], split="test")
    table = token_costs(tiny_tokenizer(), corpus)
    assert table.unused_half >= table.unused
    for cost in table.costs:
        assert cost.premium == pytest.approx(cost.byte_premium)
        assert cost.bytes_per_token == 1.0
        assert cost.interval.low <= cost.premium <= cost.interval.high
    assert table.costs[0].premium == 1.0 and table.costs[0].interval == (1.0, 1.0)
    assert np.isnan(table.costs[2].continued_words)


def test_premium_of_hand_counted_sentences_and_its_bootstrap():
    en, fi = ["ab", "abcd", "a"], ["abcd", "abcdef", "abc"]
    table = token_costs(tiny_tokenizer(), {"en": en, "fi": fi}, resamples=4000)
    cost = table.costs[1]
    assert (cost.tokens, cost.premium) == (13, 13 / 7)
    sizes = np.array([[len(line) for line in lines] for lines in (fi, en)])
    witness = scipy.stats.bootstrap(
        (sizes[0], sizes[1]),
        lambda a, b, axis=-1: a.sum(axis=axis) / b.sum(axis=axis),
        paired=True,
        method="percentile",
        rng=np.random.default_rng(3),
    ).confidence_interval
    assert cost.interval == pytest.approx((witness.low, witness.high), abs=0.02)
    rows = table.rows()
    assert rows[0].control == "the same sentences in en" and rows[-1].claim == "vocabulary unused"


def test_what_the_tokenizer_was_used_for_before_does_not_change_the_premium():
    tokenizer, lines = tiny_tokenizer(), {"en": ["a", "bbbbbb"], "fi": ["ää", "kissa"]}
    fresh = token_costs(tokenizer, lines, resamples=9).costs
    tokenizer(["x", "yyyyyyyyyyyy"], padding=True)
    assert token_costs(tokenizer, lines, resamples=9).costs == fresh
    tokenizer(["xxxxx"], truncation=True, max_length=2)
    assert token_costs(tokenizer, lines, resamples=9).costs == fresh


def test_words_are_runs_of_letters_and_marks():
    assert list(word_spans("the cat, 3 नमस्ते")) == [(0, 3), (4, 7), (11, 17)]
    assert pieces_by_word([(0, 3), (4, 7)], [(0, 2), (2, 4), (4, 5), (5, 7), (7, 8)]) == [2, 2]
    assert pieces_by_word([(0, 3), (4, 7)], [(0, 3), (3, 7)]) == [1, 1]


def test_a_tokenizer_of_whole_words_continues_none():
    words = {"cat": 0, "dog": 1, " ": 2, "xyz": 3}
    backend = Tokenizer(models.WordLevel(words, unk_token="xyz"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    table = token_costs(PreTrainedTokenizerFast(tokenizer_object=backend), {"en": ["cat dog"], "fi": ["dog cat cat"]})
    assert [cost.continued_words for cost in table.costs] == [0.0, 0.0]
    assert table.costs[1].premium == 1.5
    assert table.unused == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("text", "script"),
    [
        (" cat", "latin"),
        ("ко", "cyrillic"),
        ("数", "han"),
        ("カ", "katakana"),
        ("ａ", "latin"),
        ("aк", "mixed"),
        ("ﾊ", "katakana"),
        ("カー", "katakana"),
        ("あー", "hiragana"),
        ("aー", "mixed"),
        ("ー", "common"),
        ("µ", "common"),
        ("µa", "latin"),
        ("ᎣᏏ", "cherokee"),
        ("ꭰ", "cherokee"),
        ("ℵ", "common"),
        ("々", "han"),
        ("〆", "common"),
        ("ﷲ", "arabic"),
        ("한", "hangul"),
        ("ㄅ", "bopomofo"),
        ("ⲁ", "coptic"),
        ("ϣ", "coptic"),
        ("12,", "no letter"),
        ("\ufffd", "part of a character"),
    ],
)
def test_scripts_of_entries(text, script):
    assert script_of(text) == script


def test_scripts_of_a_vocabulary_add_up():
    found = {row.script: row.entries for row in vocabulary_by_script(tiny_tokenizer())}
    assert found == {"special": 3, "part of a character": 128, "latin": 52, "no letter": 76}


def test_a_tokenizer_without_merges_is_refused_in_one_line():
    backend = Tokenizer(models.Unigram([("a", 0.0), ("b", -1.0)], unk_id=0))
    texts = {"en": ["ab"], "fi": ["ba"]}
    for tokenizer in (PreTrainedTokenizerFast(tokenizer_object=backend), tiny_tokenizer()):
        with pytest.raises(PrerequisiteError, match="merges") as error:
            infer_training_shares(tokenizer, texts)
        assert "\n" not in str(error.value)


def test_bad_texts_are_refused(mixed):
    tokenizer, corpus = mixed
    with pytest.raises(LanguageError, match="one language"):
        infer_training_shares(tokenizer, corpus.only(["en"]))
    with pytest.raises(LanguageError, match="compare"):
        token_costs(tokenizer, {"fi": ["a"], "eu": ["b"]})
    with pytest.raises(LanguageError, match="alone"):
        token_costs(tokenizer, {"en": ["a"]})
    with pytest.raises(CorpusError, match="parallel"):
        token_costs(tokenizer, {"en": ["a", "b"], "fi": [Document("7", "a")]})


def test_a_fit_with_most_languages_left_out_is_no_number(reference):
    texts = load_corpus("reference", ("en", "fi", "ru", "zh", "eu"), split="train")
    found = infer_training_shares(reference[1], texts, merges=300, decoy=False)
    assert not found.identified and np.isnan(found.share).all()
    assert all("not identified" in row.note and np.isnan(row.estimate) for row in found.rows())
