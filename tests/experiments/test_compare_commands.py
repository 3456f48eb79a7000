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
    # Gains are 5 % apart, the first rates .5 %; the others are .005 apart, where a hundredth of the largest rate is 1.
    assert (row["figures"], row["alike"], row["words"], row["same words"]) == (3, 2, 1, 0)
    assert row["farthest"] == ".gain: 2, 2.1"
    less = {"gain": None, "rows": [{"rate": 100.0}], "more": 1.0}
    row = commands.compare(ours, less)
    assert (row["figures"], row["alike"], row["on one side"]) == (4, 1, 3)
    assert commands.compare(None, ours)["figures"] == 3 and commands.compare(None, ours)["alike"] == 0
    assert commands.compare(ours, ours)["alike"] == 3 and commands.compare({"a": 0.0}, {"a": 0.0})["alike"] == 1


def test_a_command_that_fails_is_told_and_what_a_file_holds_is_not_run_again(commands, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(commands, "COMMANDS", {"good": "doctor", "bad": "observe nothing nothing"})
    monkeypatch.setattr(commands, "PRINTED", ("good",))
    answers = str(tmp_path / "answers.jsonl")
    config = commands.Config(answers, sides=("cpu:1", "cpu:2"), rows=str(tmp_path / "rows.jsonl"))
    calls = []

    def call(name, words, side, config):
        calls.append(name)
        return commands.Done(side, name, "2", int(name == "bad"), 0.1, {"printed": {"a": 1}}, "no such folder")

    monkeypatch.setattr(commands, "call", call)
    for name in ("whole", "again"):
        (tmp_path / name).mkdir()
        commands.run(config, Run(tmp_path / name))
    assert sorted(calls) == ["bad", "bad", "good", "good"]
    lines = Path(answers).read_text().splitlines(keepends=True)
    cut = [line for line in lines if '"cpu:2", "command": "good"' not in line]
    assert len(cut) == 3
    Path(answers).write_text("".join(cut))
    (tmp_path / "cut").mkdir()
    commands.run(config, Run(tmp_path / "cut"))
    assert calls[4:] == ["good"] and sorted(Path(answers).read_text().splitlines(keepends=True)) == sorted(lines)
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert [(row["command"], row["status"], row["alike"]) for row in rows] == [("good", 0, 1), ("bad", 1, 1)]
    assert "== cpu:2: bad: 1\nno such folder" in capsys.readouterr().out


def test_a_real_command_answers_in_figures(commands, tmp_path):
    done = commands.call("doctor", ["doctor"], "cpu:1", commands.Config(""))
    assert done.status == 0 and done.said["printed"]["processors"] > 0 and done.said["results"] == []
    assert commands.split_words("subtract {adapt} --general {adapt, random}")[-1] == "{adapt, random}"


def test_the_table_counts_what_was_compared_and_names_what_was_not_run(commands, monkeypatch):
    from tables import gpu

    same = {"torch": "2", "beside_torch": "3", "status": 0, "figures": 4, "on one side": 0, "farthest": ""}
    rows = [
        {"command": "adapt", "side": "cuda:1", **same, "alike": 3, "farthest": ".gain: 1, 2"},
        {"command": "show", "side": "cuda:1", **same, "alike": 4},
        {"command": "study", "side": "cuda:1", **same, "alike": 0},
        {"command": "edit", "side": "cuda:1", **same, "status": 1, "alike": 0},
        {"command": "merge", "side": "cuda:1", "status": "not run"},
        {"command": "adapt", "side": "cpu:2", **same, "alike": 2},
        {"command": "show", "side": "cpu:2", "status": "not run"},
    ]
    monkeypatch.setattr(gpu, "read", lambda name: rows)
    first, second, *_, last = gpu.gpu_commands_lines()
    assert first.startswith("3 of 4 commands") and first.endswith("not run on both: merge.")
    assert "Of 8 figures" in second and "7 are within" in second and "In 1 of 2 compared" in second
    assert last == "| adapt | 4 | 1 | 0 | 2 | gain: 1, 2 |"
