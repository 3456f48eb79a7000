"""The comparison of every command on two devices: what counts as alike, and that no verb is left out."""

import json
import sys
from pathlib import Path

import pytest

from babelscope.cli.verbs import VERBS
from babelscope.runs import Run

FOLDER = Path(__file__).parents[2] / "experiments"
ELSEWHERE = {"demo", "play", "serve", "report", "import-mask"}
"""A study under another name, servers that do not end, and verbs that open no model."""


@pytest.fixture
def commands(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    sys.modules.pop("compare_commands", None)
    import compare_commands

    return compare_commands


def test_every_verb_that_opens_a_model_is_run_and_what_it_needs_comes_first(commands):
    begun = {
        " ".join(command.split()[: name.count(" ") + 1]) for name in VERBS for command in commands.COMMANDS.values()
    }
    assert [name for name in VERBS if name not in begun] == sorted(ELSEWHERE, key=list(VERBS).index)
    assert set(commands.PRINTED) <= set(commands.COMMANDS)
    order = commands.wanted(commands.Config("x", only=("subtract",)))
    assert order == ["observe", "identify", "adapt", "adapt, random", "subtract"]


def test_figures_are_alike_within_a_share_of_the_larger_and_words_where_they_are_the_same(commands):
    ours = {"gain": 2.0, "rows": [{"rate": 100.0}, {"rate": 0.5}], "seconds": 9, "text": "a", "on": True}
    theirs = {"gain": 2.1, "rows": [{"rate": 100.5}, {"rate": 0.495}], "seconds": 1, "text": "b", "on": False}
    row = commands.compare(ours, theirs)
    # The rate of .5 is a two-hundredth of the largest rate, and .005 apart: a two-hundredth of a hundredth's room of 1.
    assert (row["figures"], row["alike"], row["words"], row["same words"]) == (3, 2, 1, 0)
    assert row["farthest"] == ".gain: 2, 2.1"
    assert commands.compare(ours, ours)["alike"] == 3 and commands.compare({"a": 0.0}, {"a": 0.0})["alike"] == 1


def test_a_command_that_fails_is_told_and_what_a_file_holds_is_not_run_again(commands, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(commands, "COMMANDS", {"good": "doctor", "bad": "observe nothing nothing"})
    monkeypatch.setattr(commands, "PRINTED", ("good",))
    config = commands.Config(
        str(tmp_path / "answers.jsonl"), sides=("cpu:1", "cpu:2"), rows=str(tmp_path / "rows.jsonl")
    )
    calls = []

    def call(name, words, side, config):
        calls.append(name)
        return commands.Done(side, name, "2", int(name == "bad"), 0.1, {"printed": {"a": 1}}, "no such folder")

    monkeypatch.setattr(commands, "call", call)
    for number in range(2):
        folder = tmp_path / str(number)
        folder.mkdir()
        commands.run(config, Run(folder))
    assert sorted(calls) == ["bad", "bad", "good", "good"]
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert [(row["command"], row["status"], row["alike"]) for row in rows] == [("good", 0, 1), ("bad", 1, 1)]
    assert "== cpu:2: bad: 1\nno such folder" in capsys.readouterr().out


def test_a_real_command_answers_in_figures(commands, tmp_path):
    done = commands.call("doctor", ["doctor"], "cpu:1", commands.Config(""))
    assert done.status == 0 and done.said["printed"]["processors"] > 0 and done.said["results"] == []
    assert commands.split_words("subtract {adapt} --general {adapt, random}")[-1] == "{adapt, random}"
