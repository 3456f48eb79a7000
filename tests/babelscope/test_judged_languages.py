"""The languages whose word lists are written down here are told, and told from their neighbours."""

import unicodedata

import pytest
from judged_sentences import NEIGHBOURS, SENTENCES

import babelscope as bs
from babelscope.evaluation import known_languages
from babelscope.evaluation.common_words import COMMON_WORDS, FUNCTION_WORDS
from babelscope.evaluation.language_switches import TWINS
from babelscope.evaluation.word_evidence import CANDIDATES, LACKED, word_list

SCRIPTS = {tag: script for script, tags in CANDIDATES.items() for tag in tags}


def sentences(tag):
    return [line.strip() for line in SENTENCES[tag].strip().splitlines()]


def share_right(tag, target):
    answers = sentences(tag)
    return sum(judged.verdict == "right" for judged in bs.judge_answers(answers, [target] * len(answers))) / len(
        answers
    )


@pytest.mark.parametrize("tag", SENTENCES)
def test_a_known_language_is_right_as_itself_and_not_as_a_neighbour(tag):
    assert len(sentences(tag)) >= 12 and tag in known_languages()
    assert share_right(tag, tag) >= 0.9
    for neighbour in NEIGHBOURS.get(tag, ()):
        assert share_right(tag, neighbour) <= 0.1, neighbour


def test_norwegian_is_right_in_either_written_form():
    assert share_right("nn", "no") == share_right("nb", "no") == 1.0


def test_letters_and_their_accents_apart_are_the_same_words():
    answers = [unicodedata.normalize("NFD", line) for line in sentences("yo")]
    assert sum(judged.verdict == "right" for judged in bs.judge_answers(answers, ["yo"] * len(answers))) >= 11


def test_no_language_is_judged_without_a_list_of_its_words():
    assert [tag for tag, script in SCRIPTS.items() if word_list(tag, script) is None] == []


def test_every_list_has_words_enough_and_each_of_them_can_be_looked_up():
    for tag in SENTENCES.keys() & FUNCTION_WORDS.keys():
        words = {*FUNCTION_WORDS[tag].split(), *COMMON_WORDS[tag].split()}
        assert len(FUNCTION_WORDS[tag].split()) >= 60 and len(words) >= 150, tag
        assert all(word == unicodedata.normalize("NFC", word.lower()) for word in words), tag


def test_words_that_nynorsk_lacks_are_in_bokmal_and_in_no_list_of_nynorsk():
    listed = word_list("nb", "Latn")
    assert listed is not None and all(word in listed for word in LACKED["nn"])
    assert not LACKED["nn"] & {*FUNCTION_WORDS["nn"].split(), *COMMON_WORDS["nn"].split()}


def test_twins_share_a_script():
    assert all(SCRIPTS[twin] == SCRIPTS[target] for target, twins in TWINS.items() for twin in twins)


def test_a_mixture_with_a_third_language_is_not_given_to_a_twin():
    """Half Dutch and half German looks more like Afrikaans than like Dutch, as a whole."""
    answer = "Wij hebben gisteren een nieuwe fiets gekocht. Das Wetter ist heute schön und wir gehen spazieren."
    (judged,) = bs.judge_answers([answer], ["nl"])
    assert judged.verdict == "mixed" and set(judged.languages) == {"nl", "de"}
