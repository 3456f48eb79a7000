"""Rows from the tokens of translations: the alignment against nltk and by hand, a planted language, and the control."""

import random
from collections import defaultdict

import numpy as np
import pytest
import torch
from nltk.translate import AlignedSent, IBMModel1
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast
from vocabulary_cases import KINDS, lines, model_for, tokenizer_of

from babelscope import extend_vocabulary, replace_vocabulary
from babelscope.corpus import as_corpus, encode_texts
from babelscope.errors import CorpusError, LanguageError, MeasurementError
from babelscope.languages import Language
from babelscope.vocabulary.cut_words import cut_sentence, cut_sentences
from babelscope.vocabulary.translated_rows import add_link, check_pairs
from babelscope.vocabulary.word_alignment import best_places, candidates_of, fit_word_table, word_links

CONSONANTS, VOWELS = "bdgklmnprst", "aeiou"
CLONED = str.maketrans(CONSONANTS + VOWELS, "DGKLMNPRSTBEIOUA")


def planted(n_words=30, sentences=150, seed=0):
    """Sentences of a source language and of its clone, whose words come in the reverse order; words start with " "."""
    rng = random.Random(seed)
    words = rng.sample([a + b + c + d for a in CONSONANTS for b in VOWELS for c in CONSONANTS for d in VOWELS], n_words)
    drawn = [rng.choices(words, k=rng.randint(2, 9)) for _ in range(sentences)]
    source = ["".join(f" {word}" for word in sentence) for sentence in drawn]
    clone = ["".join(f" {word.translate(CLONED)}" for word in reversed(sentence)) for sentence in drawn]
    return words, source, clone


def tokenizer_with_whole_words(text):
    """A byte-level BPE that has each word of a text."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=900,
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(text, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", bos_token="<s>", eos_token="</s>")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|turn|>"]})
    return tokenizer


@pytest.mark.parametrize("passes", [1, 4])
def test_probabilities_of_words_are_those_of_nltk(passes):
    rng = random.Random(1)
    # nltk counts a target word that comes twice in a sentence once: here none does.
    targets = [rng.sample("abcdefgh", rng.randint(1, 5)) for _ in range(12)]
    sources = [rng.choices("KLMNO", k=rng.randint(1, 4)) for _ in range(12)]
    witness = IBMModel1([AlignedSent(t, s) for s, t in zip(sources, targets, strict=True)], passes).translation_table
    table, _ = fit_word_table(candidates_of(sources, targets), passes)
    names = [dict(enumerate(dict.fromkeys(w for s in side for w in s))) for side in (sources, targets)]
    for source, target, value in zip(*table, strict=True):
        word = None if source == 0 else names[0][source - 1]
        assert value == pytest.approx(witness[names[1][target]][word], rel=1e-9)


def test_probabilities_count_a_word_as_often_as_it_comes():
    # One pass from equal probabilities, by hand: "a a" and "b" against "x y", with the empty word at each.
    table, _ = fit_word_table(candidates_of([["x", "y"], ["x"]], [["a", "a"], ["b"]]), passes=1)
    third, values = 1 / 3, {(s, t): p for s, t, p in zip(*(column.tolist() for column in table), strict=True)}
    empty, x = 2 * third + 0.5, 2 * third + 0.5
    assert values == pytest.approx(
        {(0, 0): 2 * third / empty, (0, 1): 0.5 / empty, (1, 0): 2 * third / x, (1, 1): 0.5 / x, (2, 0): 1.0}
    )


def test_links_are_the_dictionary_of_a_planted_language_and_copies_link_to_the_nearest():
    words, source, clone = planted()
    sides = [[sentence.split() for sentence in side] for side in (source, clone)]
    flat = [[word for sentence in side for word in sentence] for side in sides]
    links = word_links(sides[0], sides[1])
    assert {(flat[0][i], flat[1][j]) for i, j in links.tolist()} == {(word, word.translate(CLONED)) for word in words}
    assert len(links) > 0.95 * len(flat[0])
    same = [["the", "cat", "the", "dog"], ["the"], ["a", "dog"], ["a", "cat"]]
    other = [["das", "kat", "das", "hund"], ["das"], ["ein", "hund"], ["ein", "kat"]]
    assert best_places(same, other)[:4].tolist() == [0, 1, 2, 3]
    # "x" and "y" both choose "a", which chooses "x", the only one that it has elsewhere too.
    assert word_links([["a"], ["a"]], [["x", "y"], ["x"]]).tolist() == [[0, 0], [1, 2]]
    assert not len(word_links([[], ["a"]], [["b"], []])) and not len(word_links([[]], [[]]))


def test_new_rows_of_a_planted_language_are_those_of_its_dictionary_bit_for_bit():
    words, source, clone = planted()
    # A tokenizer that is replaced has as many entries at most: further words make room.
    tokenizer = tokenizer_with_whole_words(source + planted(seed=1)[1])
    model = model_for(tokenizer, "phi")
    pairs = {"en": source, "cy": clone}
    pack = replace_vocabulary(model, tokenizer, {"cy": clone}, init="translate", min_count=1, pairs=pairs)
    control = replace_vocabulary(
        model, tokenizer, {"cy": clone}, init="translate-shuffled", min_count=1, pairs=pairs, seed=3
    )
    new, kept = (pack.source < 0).nonzero()[:, 0].tolist(), 0
    tables = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    for word in words:
        (old,), (fresh,) = tokenizer(f" {word}").input_ids, pack.tokenizer(f" {word.translate(CLONED)}").input_ids
        place = new.index(fresh)
        for table, rows in zip(tables, (pack.rows, pack.head_rows), strict=True):
            assert rows is not None and torch.equal(rows[place], table[old])
        kept += torch.equal(control.rows[place], tables[0][old])
    account = pack.parameters["alignment"]
    assert account["aligned"] == len(words) and account["sentences"] == len(source) and kept == 0
    assert sorted(map(tuple, control.rows.tolist())) == sorted(map(tuple, pack.rows.tolist()))


def test_a_link_is_half_spread_and_half_in_order():
    counts: dict[int, dict[int, float]] = {8: defaultdict(float), 9: defaultdict(float)}
    add_link(counts, (1, 2, 3), (8, 9, 4))
    add_link(counts, (1, 2, 3), (8, 9))
    third = 0.5 / 9
    assert counts[8] == pytest.approx({1: third + 1 / 6 + 0.25, 2: third + 1 / 6, 3: third + 1 / 12})
    assert counts[9] == pytest.approx({1: third + 1 / 12, 2: third + 1 / 6 + 1 / 6, 3: third + 0.25})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Bore da, gyfeillion!", ["bore", "da", "gyfeillion"]),
        ("«Сәлам» 12 дус.", ["сәлам", "дус"]),
        ("नमस्ते दुनिया", ["नमस्ते", "दुनिया"]),
        ("12, 3", []),
    ],
)
def test_words_are_written_with_the_tokens_that_hold_their_letters(kind, text, expected):
    tokenizer = tokenizer_of(kind)
    (sentence,) = cut_sentences(tokenizer, Language("cy"), as_corpus({"cy": [text]})["cy"])
    assert list(sentence.words) == expected
    for word, ids in zip(sentence.words, sentence.tokens, strict=True):
        if tokenizer.unk_token_id not in ids:
            assert word in str(tokenizer.decode(list(ids))).casefold()


def test_where_no_spaces_are_written_a_token_is_a_word():
    tokenizer, text = tokenizer_of("byte fallback"), "बड़ा काम"
    encoding = encode_texts(tokenizer, [text])[0].encoding
    assert encoding is not None
    spaced, unspaced = (cut_sentence(text, encoding, Language(tag)) for tag in ("hi", "hi-Thai"))
    assert len(spaced.words) == 2 < len(unspaced.words)
    assert "".join(unspaced.words) == text.replace(" ", "")


def test_entries_without_a_link_begin_with_their_sub_words():
    tokenizer = tokenizer_of("byte-level")
    model, text = model_for(tokenizer), lines("cy", count=80)
    pairs = {"en": ["one thing", "one thing", "two"], "cy": ["un peth", "un peth", "dau"]}
    packs = [
        extend_vocabulary(model, tokenizer, text, size=40, init=init, pairs=given)
        for init, given in (("translate", {"en": lines("en")["en"], "cy": lines("cy")["cy"]}), ("subword", None))
    ]
    moved = int((packs[0].rows != packs[1].rows).any(1).sum())
    assert 0 < moved <= packs[0].parameters["alignment"]["aligned"] < 40
    with pytest.raises(CorpusError, match=r"0 of 4 new entries stand in an aligned word of 3 pairs"):
        extend_vocabulary(model, tokenizer, text, size=4, init="translate", pairs={**pairs, "cy": ["x", "y", "z"]})


@pytest.mark.parametrize(
    ("init", "pairs", "error", "says"),
    [
        ("translate", None, MeasurementError, "'translate' came without pairs; expected parallel text of 'en', 'cy'"),
        ("subword", {"en": ["a"], "cy": ["b"]}, MeasurementError, "pairs came with init 'subword'"),
        ("translate", {"en": ["a"], "fi": ["b"]}, LanguageError, "no cy among en, fi of the pairs came"),
        ("translate", {"fi": ["a"], "cy": ["b"]}, LanguageError, "no text in 'en' to compare with"),
        ("translate", {"en": ["a", "c"], "cy": ["b"]}, CorpusError, "cy"),
        ("translate", as_corpus({"en": ["a"], "cy": ["b"]}), CorpusError, "nothing says that its sentences"),
    ],
)  # fmt: skip
def test_pairs_that_cannot_be_used_are_refused_before_the_work(init, pairs, error, says):
    with pytest.raises(error, match=says) as raised:
        check_pairs(init, pairs, "en", as_corpus({"cy": ["b"]}))
    assert "\n" not in str(raised.value)


def test_text_of_the_known_language_alone_has_nothing_to_translate():
    with pytest.raises(LanguageError, match="text in 'en' alone came"):
        check_pairs("translate", {"en": ["a"], "cy": ["b"]}, "en", as_corpus({"en": ["b"]}))
    assert np.array_equal(best_places([["a"]], [["b"]]), [0])
