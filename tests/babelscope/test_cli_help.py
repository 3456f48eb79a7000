"""What `babelscope VERB --help` says."""

import inspect
import re
from importlib import import_module
from typing import get_args

import pytest

from babelscope.cli import main
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
