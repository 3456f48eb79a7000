"""Scripts are Unicode's own; a language has the scripts its tag names, or all that it is written in."""

import sys
from unicodedata import category, name

import pytest
import regex

from babelscope.errors import LanguageError
from babelscope.languages.scripts import (
    COMMON,
    SCRIPT_NAMES,
    letters_by_script,
    script_of_character,
    scripts_of_character,
    scripts_of_language,
)


@pytest.mark.parametrize(
    ("character", "code"),
    [("é", "Latn"), ("ª", "Latn"), ("々", "Hani"), ("〇", "Hani"), ("ｶ", "Kana"), ("ﬁ", "Latn"), ("ꙮ", "Cyrl")]
    + [("א", "Hebr"), ("த", "Taml"), ("ป", "Thai"), ("አ", "Ethi"), ("ߒ", "Nkoo"), ("7", COMMON), ("ー", COMMON)],
)
def test_a_character_has_unicode_s_script(character, code):
    assert script_of_character(character) == code


def test_every_letter_outside_the_table_belongs_to_no_script():
    letters = [c for c in map(chr, range(sys.maxunicode + 1)) if category(c)[0] == "L"]
    rest = [c for c in letters if script_of_character(c) == COMMON]
    shared = regex.compile(r"[\p{Script=Common}\p{Script=Inherited}]")
    assert len(letters) > 100_000 and [name(c) for c in rest if not shared.match(c)] == []


def test_the_long_mark_is_used_with_both_kana():
    assert scripts_of_character("ー") == {"Hira", "Kana"}
    assert scripts_of_character("a") == {"Latn"}
    assert scripts_of_character("7") == frozenset()


def test_letters_are_counted_by_script_and_marks_are_not():
    assert letters_by_script("Αθήνα, Rōma 7, ｶﾀｶﾅ, कि") == {"Grek": 5, "Latn": 4, "Kana": 4, "Deva": 1}
    assert letters_by_script("12 !?") == {}


@pytest.mark.parametrize(
    ("tag", "scripts"),
    [
        ("ja", {"Hani", "Hira", "Kana"}),
        ("ko", {"Hang", "Hani"}),
        ("zh", {"Hani"}),
        ("zh-Hant", {"Hani"}),
        ("sr", {"Cyrl", "Latn"}),
        ("sr-Latn", {"Latn"}),
        ("he", {"Hebr"}),
        ("bn", {"Beng"}),
        ("fi", {"Latn"}),
        ("mn", {"Cyrl", "Mong"}),
    ],
)
def test_the_scripts_of_a_language(tag, scripts):
    assert scripts_of_language(tag) == scripts


def test_an_unknown_language_is_refused():
    with pytest.raises(LanguageError, match="'klingonish' is unknown"):
        scripts_of_language("klingonish")


def test_the_names_are_unicode_s():
    for code, script in SCRIPT_NAMES.items():
        long = script.replace(" ", "_")
        assert regex.compile(rf"\p{{Script={code}}}") and regex.compile(rf"\p{{Script={long}}}")
