"""What is printed is one line, and nothing out of a file steers the terminal."""

import json
import logging
import unicodedata

import pytest

from babelscope import cli
from babelscope.cli.arguments import FailedResult
from babelscope.cli.telling import Told, print_log_lines
from babelscope.errors import CorpusError, ToolkitError, one_line, printable_json

NASTY = "a\n\r\x1b[2J\x1b]0;title\x07b\x7f\x9b31m\u202eevil\u2066x\u2028y\u2029z\u0085\ud800\u200f"


def is_safe(line):
    """Whether no character of a line is a control, a line end, a mark of direction or half a surrogate."""
    marks = ("LRE", "RLE", "PDF", "LRO", "RLO", "LRI", "RLI", "FSI", "PDI")
    return not any(
        unicodedata.category(letter) in ("Cc", "Zl", "Zp", "Cs")
        or unicodedata.bidirectional(letter) in marks
        or letter in "\u200e\u200f\u061c"
        for letter in line
    )


def test_every_character_that_steers_a_terminal_is_escaped_and_no_other_changed():
    for code in range(0x110000):
        letter = chr(code)
        escaped = one_line(letter)
        assert is_safe(escaped) and (escaped == letter) == is_safe(letter), hex(code)
    assert one_line("a\nb\x1b") == "a\\nb\\x1b" and one_line("\u202e") == "\\u202e"


def test_words_of_every_script_stay_as_they_are():
    text = "Hyvää yötä, नमस्ते, می‌خواهم, 你好, שלום, 👩‍👩‍👧, C:\\new"
    assert one_line(text) == text == printable_json(text)


def test_an_error_is_one_safe_line_and_passing_it_on_changes_nothing():
    first = CorpusError(f"{NASTY}: no readable row")
    assert is_safe(str(first)) and str(first).endswith("no readable row")
    assert str(CorpusError(str(first))) == str(first)


def test_of_a_very_long_message_both_ends_are_left():
    text = str(ToolkitError(f"began {'x' * 100_000} do this"))
    assert len(text) < 1_300 and text.startswith("began x") and text.endswith("x do this")


def test_json_reads_back_as_the_same_value():
    text = printable_json(json.dumps({NASTY: [NASTY, "ä"]}, ensure_ascii=False))
    assert is_safe(text) and json.loads(text) == {NASTY: [NASTY, "ä"]} and "ä" in text


@pytest.fixture
def verb(monkeypatch):
    """The command line with a verb that returns, or raises, what it is given."""

    def run(outcome, *flags):
        def called(*_):
            if isinstance(outcome, BaseException):
                raise outcome
            return outcome

        monkeypatch.setattr("babelscope.cli.calling.call_verb", called)
        return cli.main(["steer", *flags])

    return run


@pytest.mark.parametrize("outcome", [{"answer": NASTY, "rows": {NASTY: [NASTY]}}, Told({}, [NASTY, NASTY])])
def test_results_are_printed_safely(verb, capsys, outcome):
    assert verb(outcome) == 0
    printed = capsys.readouterr().out.split("\n")
    assert all(map(is_safe, printed)) and any("evil" in line for line in printed)


def test_a_result_as_json_is_one_safe_line_of_the_same_value(verb, capsys):
    assert verb({"answer": NASTY}, "--json") == 0
    line, end = capsys.readouterr().out.split("\n")
    assert is_safe(line) and not end and json.loads(line) == {"answer": NASTY}


def test_an_error_is_a_line_and_with_json_an_object_too(verb, capsys):
    assert verb(CorpusError(f"{NASTY}: no row")) == 1
    out, err = capsys.readouterr()
    assert not out and err.startswith("babelscope steer: a") and is_safe(err.removesuffix("\n"))
    assert verb(CorpusError(f"{NASTY}: no row"), "--json") == 1
    out, again = capsys.readouterr()
    found = json.loads(out)
    assert again == err and found["kind"] == "CorpusError" and found["error"].endswith(": no row")
    assert is_safe(out.removesuffix("\n"))


def test_an_interruption_and_an_unknown_command_are_objects_too(verb, capsys):
    assert verb(KeyboardInterrupt(), "--json") == 130
    assert json.loads(capsys.readouterr().out)["kind"] == "Interrupted"
    assert cli.main([NASTY, "--json"]) == 2
    out, err = capsys.readouterr()
    assert json.loads(out)["kind"] == "Misuse" and is_safe(err.removesuffix("\n"))


def test_a_failed_result_is_printed_like_any_other(verb, capsys):
    assert verb(FailedResult({"wrong": NASTY}), "--json") == 1
    assert json.loads(capsys.readouterr().out) == {"wrong": NASTY}


def test_lines_of_the_log_are_safe(capsys):
    log = logging.Logger("test")
    log.addHandler(print_log_lines(logging.StreamHandler()))
    log.warning("%s: %d documents", NASTY, 3)
    try:
        raise ValueError(NASTY)
    except ValueError:
        log.exception("it failed")
    first, second, end = capsys.readouterr().err.split("\n")
    assert is_safe(first) and first.endswith(": 3 documents") and not end
    assert is_safe(second) and second.startswith("it failed (ValueError(")
