"""Text of several languages mixed by units: what stands where, worked out by hand."""

from collections import Counter

import pytest

from babelscope import join_pairs, mix_languages
from babelscope.corpus import Document, as_corpus
from babelscope.corpus.mixed import cut_line
from babelscope.errors import CorpusError
from babelscope.languages import Language

TAGS = ("en", "fi", "ru")
LETTERS = {"en": "a", "fi": "ö", "ru": "ж"}


def word(tag, line, place):
    return f"{LETTERS[tag]}{line}.{place}"


def parallel(lines=7, words=4, tags=TAGS):
    """Line i of every language has the same places, each a word that says its line, place and language."""
    return {tag: [" ".join(word(tag, line, place) for place in range(words)) for line in range(lines)] for tag in tags}


def languages_of(text):
    return [next(tag for tag, letter in LETTERS.items() if entry[0] == letter) for entry in text.split()]


@pytest.mark.parametrize(("unit", "width"), [("words", 2), ("sentence", 4), ("document", 12)])
def test_every_unit_stands_once_in_each_language_and_whole(unit, width):
    mixed = mix_languages(parallel(), unit=unit, lines=3, words=2, seed=5)
    assert [*mixed] == [*TAGS] and mixed.parallel and all(len(documents) == 3 for documents in mixed.values())
    entries = Counter(
        entry for documents in mixed.values() for document in documents for entry in document.text.split()
    )
    assert entries == Counter(entry for lines in parallel().values() for line in lines for entry in line.split())
    for tag in TAGS:
        for number, document in enumerate(mixed[tag]):
            # The content is that of the lines in order, whatever language it stands in.
            places = [entry[1:] for entry in document.text.split()]
            lines = range(3 * number, min(3 * number + 3, 7))
            assert places == [f"{line}.{place}" for line in lines for place in range(4)]
            spoken = languages_of(document.text)
            assert all(len({*spoken[at : at + width]}) == 1 for at in range(0, len(spoken), width))
    spoken = languages_of(mixed["en"][0].text)
    assert len({*spoken}) == (1 if unit == "document" else len({*spoken[::width]}))


def test_languages_are_drawn_evenly_and_by_the_seed():
    texts = parallel(lines=600, words=1)
    mixed = mix_languages(texts, lines=4, seed=1)
    for tag in TAGS:
        counts = Counter(language for document in mixed[tag] for language in languages_of(document.text))
        # Expected 200, standard deviation √(600 · 1/3 · 2/3) = 11.5.
        assert all(abs(counts[other] - 200) < 46 for other in TAGS)
        pairs = [languages_of(document.text) for document in mixed[tag]]
        # Neighbours are independent: of 450 pairs a third are alike, standard deviation 10.
        assert abs(sum(a == b for row in pairs for a, b in zip(row, row[1:], strict=False)) - 150) < 40
    assert mixed.hash == mix_languages(texts, lines=4, seed=1).hash != mix_languages(texts, lines=4, seed=2).hash


def test_the_control_is_the_lines_of_one_language():
    texts = parallel()
    mixed = mix_languages(texts, unit="document", lines=3, seed=5)
    documents = {document.text for part in mixed.values() for document in part}
    assert documents == {" ".join(lines[start : start + 3]) for lines in texts.values() for start in (0, 3, 6)}


def test_lines_have_as_many_parts_in_all_languages():
    # 18 words are two units of eight or more; the Chinese line is cut behind its comma, near its middle.
    english = ("a b c d e f g h i", "j k l m n o p q r")
    chinese = ("雖然美國的許多數字化轉型都是史無前例的，", "但權力的和平轉移卻存在先例，他寫道。")
    texts = {"en": [" ".join(english)], "zh": ["".join(chinese)]}
    mixed = [mix_languages(texts, unit="words", seed=seed).values() for seed in range(8)]
    crossed = {f"{english[0]} {chinese[1]}", f"{chinese[0]} {english[1]}"}
    apart = {texts["en"][0], texts["zh"][0]}
    results = {frozenset(document.text for part in parts for document in part) for parts in mixed}
    assert results == {frozenset(crossed), frozenset(apart)}


@pytest.mark.parametrize(
    ("tag", "parts", "pieces"),
    [
        ("en", 3, ["one two ", "three, ", "four five."]),
        # Kanji keep their endings, a word in katakana is whole, and the comma is nearer than the middle.
        ("ja", 2, ["フォローした人にとっては、", "このことは少し違う。"]),
        ("ja", 3, ["東京へ", "行きました", "昨日。"]),
        # A Latin word, a number and closing signs are never cut off.
        ("zh", 7, ["我", "在", "IBM", "买", "了", "3.5", "个。”"]),
        ("th", 2, ["กินข้าว ", "แล้วนอน"]),
    ],
)
def test_cuts_fall_between_words_or_where_no_word_is_cut(tag, parts, pieces):
    assert cut_line("".join(pieces), Language.parse(tag), parts) == pieces


def test_pieces_are_joined_as_their_scripts_are_written():
    texts = {"zh": ["你好。", "再见。"], "ja": ["今日は。", "さらば。"], "en": ["Hello.", "Bye."]}
    for seed in range(6):
        for documents in mix_languages(texts, seed=seed).values():
            (text,) = (document.text for document in documents)
            assert (" " in text) == any(word in text for word in ("Hello", "Bye")) and "  " not in text


def test_a_blank_line_is_left_out_in_all_languages_and_bad_text_is_refused():
    texts = {"en": ["a", "b", "c"], "fi": ["ö", " ", "å"]}
    assert {*" ".join(d.text for part in mix_languages(texts).values() for d in part).split()} == {*"acöå"}
    with pytest.raises(CorpusError, match="en came, parallel; expected parallel text of two languages"):
        mix_languages({"en": ["a"]})
    with pytest.raises(CorpusError, match="en, fi came, not parallel"):
        mix_languages(as_corpus(texts))
    with pytest.raises(CorpusError, match="0 lines a document and 8 words a unit came"):
        mix_languages(texts, lines=0)
    with pytest.raises(CorpusError, match="prompts with answers came"):
        mix_languages({tag: [Document("1", "a", prompt="b")] for tag in ("en", "fi")})


def test_every_second_pair_is_joined_with_its_target():
    texts = {"fi": ["yksi", "kaksi", " ", "kolme", "neljä"], "en": ["one", "two ", "blank", "three", "four"]}
    joined = join_pairs(texts, source="fi", target="en")
    assert [*joined] == ["fi", "en"] and joined.parallel
    assert [document.text for document in joined["fi"]] == ["yksi", "kaksi two", "kolme", "neljä four"]
    assert [document.text for document in joined["en"]] == ["one", "two two", "three", "four four"]
    assert [document.id for document in joined["en"]] == ["0", "1", "3", "4"]
    assert [document.text for document in join_pairs(texts, source="en", target="fi")["en"]][1] == "two kaksi"
    with pytest.raises(CorpusError, match="de"):
        join_pairs(texts, source="de", target="en")
    with pytest.raises(CorpusError, match="not parallel"):
        join_pairs(as_corpus(texts), source="fi", target="en")
