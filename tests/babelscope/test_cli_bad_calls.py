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
