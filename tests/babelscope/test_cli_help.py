"""What `babelscope VERB --help` says."""

import inspect
import json
import re
from importlib import import_module
from io import BytesIO, TextIOWrapper
from typing import get_args

import pytest

from babelscope.cli import as_json_line, main
from babelscope.cli.verbs import VERBS


def functions():
    for verb, entry in VERBS.items():
        yield verb, getattr(import_module(f"babelscope.cli.{entry.module}"), entry.function)


def shown(capsys, verb):
    with pytest.raises(SystemExit) as stop:
        main([*verb.split(), "--help"])
    assert stop.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(("verb", "function"), list(functions()), ids=VERBS)
def test_every_argument_says_what_it_is(verb, function):
    described = re.findall(r"^ {8}(\w+): \S", inspect.getdoc(function).replace("\n    ", "\n        "), re.MULTILINE)
    for name, parameter in inspect.signature(function).parameters.items():
        by_type = any(getattr(note, "help", None) for note in get_args(parameter.annotation))
        assert by_type or name in described, f"{verb} --help says nothing of {name}"


@pytest.mark.parametrize("verb", VERBS)
def test_usage_names_what_comes_first(capsys, verb):
    usage = shown(capsys, verb).split("\n\n")[0]
    assert usage.startswith(f"usage: babelscope {verb} ")
    before_flags = usage.split("--")[0]
    assert not re.search(r"\b(STR|PATH|INT)\b", before_flags), before_flags


@pytest.mark.parametrize("verb", VERBS)
def test_an_empty_default_is_said_in_words_and_a_text_is_one_paragraph(capsys, verb, monkeypatch):
    monkeypatch.setenv("COLUMNS", "2000")
    page = shown(capsys, verb)
    assert not re.search(r"\(default: ?(''|None)?\)|\{None\}\|", page)
    boxes = [line for line in page.splitlines() if line.startswith("│ ") and not line.startswith("│  ")]
    texts = [line for line in page.splitlines() if re.match(r"│ {2,}\S", line)]
    assert len(texts) <= len(boxes), "a text breaks where the source does"
    assert main([]) == 2 and main(["help"]) == 0


@pytest.mark.parametrize("words", [["--help"], ["merge", "--help"], ["evaluate"], ["observe", "--out", "o"]])
def test_output_that_has_no_such_letters_is_escaped_and_no_traceback(words, monkeypatch, capsys):
    lines = TextIOWrapper(BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stdout", lines)
    try:
        main(words)
    except SystemExit as end:
        assert not end.code
    lines.flush()
    page = lines.buffer.getvalue().decode("ascii") + capsys.readouterr().err
    assert "babelscope" in page and ("\\u2026" in page or "expected, and did not come: MODEL" in page)


def test_json_stays_json_where_output_is_not_utf_8(monkeypatch):
    monkeypatch.setattr("sys.stdout", TextIOWrapper(BytesIO(), encoding="latin-1"))
    assert json.loads(as_json_line({"text": "ä😀"}).encode("ascii")) == {"text": "ä😀"}
