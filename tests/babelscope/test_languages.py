import string

import langcodes
import pytest

from babelscope import Language
from babelscope.errors import LanguageError
from babelscope.languages import is_tag, language_index, parse_languages
from babelscope.languages.language_tags import TWO_LETTERS


@pytest.mark.parametrize(
    ("tag", "canonical", "iso", "script"),
    [
        ("fi", "fi", "fin", "Latn"),
        ("zh_hant", "zh-Hant", "zho", "Hant"),
        ("zh", "zh", "zho", "Hans"),
        ("tt", "tt", "tat", "Cyrl"),
        ("sr-Latn", "sr-Latn", "srp", "Latn"),
        ("iw", "he", "heb", "Hebr"),
    ],
)
def test_tags_become_canonical(tag, canonical, iso, script):
    language = Language.parse(tag)
    assert (language, language.iso639_3, language.script) == (canonical, iso, script)
    assert language.flores == f"{iso}_{script}"


def test_tags_that_the_registry_is_not_asked_for_are_canonical_in_it():
    alphabet = string.ascii_lowercase
    pairs = {one + two for one in alphabet for two in alphabet if is_tag(one + two)}
    assert {tag for tag in pairs if langcodes.standardize_tag(tag, macro=False) == tag} == TWO_LETTERS


def test_a_plain_tag_is_a_key():
    assert {Language.parse("eu"): 1}["eu"] == 1


@pytest.mark.parametrize(("macro", "individual"), [("zh", "cmn"), ("ar", "arb"), ("no", "nb")])
def test_macro_and_individual_codes_stay_apart(macro, individual):
    assert Language.parse(macro) != Language.parse(individual)


@pytest.mark.parametrize("tag", ["", "english", "xx", "und", "e", "en--us"])
def test_unknown_tags_are_refused_with_the_tag(tag):
    with pytest.raises(LanguageError, match="BCP-47") as caught:
        Language.parse(tag)
    assert repr(tag) in str(caught.value)


def test_a_language_given_twice_is_refused():
    with pytest.raises(LanguageError, match="he came twice"):
        parse_languages(["iw", "he"])
    with pytest.raises(LanguageError, match="no language"):
        parse_languages([])


@pytest.mark.parametrize(
    ("word", "tag"),
    [
        ("Finnish", "fi"),
        ("english", "en"),
        ("suomi", "fi"),
        ("日本語", "ja"),
        ("Chinese (Traditional)", "zh-Hant"),
        ("fin", "fi"),
        ("zho_Hans", "zh-Hans"),
        ("Brazilian Portuguese", "pt-BR"),
    ],
)
def test_a_name_in_place_of_a_tag_is_refused_with_the_tag_it_stands_for(word, tag):
    with pytest.raises(LanguageError, match=f"write '{tag}'$"):
        Language.parse(word)


@pytest.mark.parametrize("word", ["Germn", "und", "", " ", "x", "none", "en--us"])
def test_a_word_that_names_no_language_suggests_none(word):
    with pytest.raises(LanguageError, match="correct the tag$"):
        Language.parse(word)


@pytest.mark.parametrize("word", ["fi,ru,zh", "fi, ru; zh", "fi ru zh", "Finnish,rus,zh"])
def test_several_tags_in_one_word_are_told_apart(word):
    with pytest.raises(LanguageError, match="name each by itself: fi ru zh$"):
        Language.parse(word)


def test_a_name_of_two_words_is_one_language():
    with pytest.raises(LanguageError, match="write 'ht'$"):
        Language.parse("Haitian Creole")


def test_a_language_has_its_name_in_english():
    assert [Language(tag).english_name for tag in ("fi", "zh-Hant", "pt-BR")] == [
        "Finnish",
        "Chinese (Traditional)",
        "Portuguese (Brazil)",
    ]


def test_a_language_that_is_not_among_others_is_named_with_them():
    tags = parse_languages(["en", "fi"])
    assert language_index("fi", tags, "nothing in {tag}") == 1
    with pytest.raises(LanguageError, match="nothing in 'ru'; expected one of en, fi; name one of them"):
        language_index("ru", tags, "nothing in {tag}")
