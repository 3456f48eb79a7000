"""Nothing that is damaged loads as something else, and nothing that is killed is lost; `measure.py` tries more."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from robustness.kinds import KINDS, Kind
from robustness.mutators import MUTATORS
from robustness.odd_mutators import ODD
from robustness.trials import Bench, good
from safetensors.torch import load_file

from babelscope.artifacts import Direction
from babelscope.artifacts.identity import read_origin
from babelscope.sites import Site


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return Bench(tmp_path_factory.mktemp("artifacts"))


@pytest.mark.parametrize("name", KINDS)
def test_a_damaged_artifact_is_refused_in_one_line_or_is_what_was_saved(bench, name):
    ways = (False, True) if KINDS[name].hashes else (False,)
    trials = [bench.trial(name, mutator, 0, resealed=way) for mutator in MUTATORS for way in ways]
    trials += [bench.trial(name, mutator, 0, resealed=ways[-1]) for mutator in ODD]
    assert not [trial for trial in trials if not good(trial)]
    refused = sum(trial.outcome == "refused" for trial in trials)
    assert refused > len(trials) / 2, "the mutators do damage"


def test_a_loader_that_checks_nothing_would_be_seen(bench, monkeypatch):
    def blind(path):
        described = json.loads((path / "config.json").read_text())
        return Direction(
            load_file(path / "tensors.safetensors")["vector"],
            Site.parse(described["site"]),
            described["target"],
            tuple(described["source"]),
            described["mean_norm"],
            read_origin(described["origin"]),
            described["parameters"],
            median_norm=described["median_norm"],
        )

    monkeypatch.setitem(KINDS, "Direction", Kind(KINDS["Direction"].save, blind))
    outcomes = [bench.trial("Direction", mutator, 0, resealed=False).outcome for mutator in MUTATORS]
    assert {"equal", "changed", "traceback"} <= {*outcomes}


def test_killed_verbs_go_on_to_the_same_bits_and_on_a_full_disk_and_two_at_once_nothing_is_lost():
    measure = Path(__file__).parent / "measure.py"
    words = [
        "--seeds",
        "0",
        "--every",
        "100",
        "--verbs",
        "observe",
        "adapt",
        "sweep",
        "--races",
        "1",
        "--sizes",
        "3000",
    ]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, measure, *words]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-2_000:]
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert not [row for row in rows if "bad" in row]
    assert sum(row["n"] for row in rows if row.get("check") == "kill") >= 6
