"""Bad calls of every verb: each is one line and exit 1 or 2 before a model is opened."""

import os
import re

import pytest
from bad_calls import CALLS
from cli_calls import make_kinds

from babelscope.cli import main
from babelscope.cli.verbs import VERBS, split_verb


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    return make_kinds(tmp_path_factory.mktemp("kinds"))


def opened(*_, **__):
    raise AssertionError("a model was opened")


@pytest.mark.parametrize("verb", [*VERBS, "nothing", "evaluate nothing"])
def test_a_bad_call_is_one_line_before_a_model_is_opened(verb, here, monkeypatch, capsys):
    monkeypatch.chdir(here)
    monkeypatch.setattr("babelscope.models.open_model", opened)
    before = sorted(os.listdir(here))
    for words in (words for words in CALLS if split_verb(words)[0] == verb):
        try:
            code = main(words)
        except BaseException as err:
            raise AssertionError(words) from err
        out, err = capsys.readouterr()
        assert code in (1, 2) and out == "", (words, code, out)
        assert re.fullmatch(r"babelscope[^\n]*: [^\n]{10,1300}\n", err), (words, err)
        assert "Traceback" not in err
        assert sorted(os.listdir(here)) == before, words


def test_there_are_many():
    assert len(CALLS) >= 250 and {split_verb(words)[0] for words in CALLS} >= set(VERBS)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("study m c --out o --minutes abc", "--minutes 'abc' came; expected a number, such as 0.05; correct it"),
        ("study m c --out o --strengths 1 b", "--strengths 'b' came; expected a number, such as 0.05; correct it"),
        ("study m c --out o --layers 1.5", "--layers '1.5' came; expected a whole number, in digits; correct it"),
        (
            "observe m c --out o --tokens-per-language=2e3",
            "--tokens-per-language '2e3' came; expected a whole number, ",
        ),
        ("observe m c --out", "--out came without a value; expected one after it; "),
        ("observe m c --split --out o", "--split came without a value; expected one after it; "),
        ("study m c d --out o", "d: this command has no place for it; leave it out, or quote a text; "),
        ("study m --out o", "expected, and did not come: CORPUS "),
    ],
)
def test_a_word_of_another_kind_is_told_in_words_of_this_library(words, line, capsys):
    assert main(words.split()) == 2
    assert capsys.readouterr().err.partition(": ")[2].startswith(line)


def test_a_typo_of_a_command_is_told_with_the_nearest_one(capsys):
    for words, meant in (("obsrve m c", "observe"), ("evaluate perplxity m c", "evaluate perplexity")):
        assert main(words.split()) == 2
        assert f"is no command; did you mean `babelscope {meant}`?" in capsys.readouterr().err
