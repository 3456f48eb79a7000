"""Is this tree as fast as another commit, and does it still say the same?

`observe`, generation under steering and training of a language's neurons, on the bundled model, by the public names
that both trees have (`commit_workloads.py`). A tree after the other, in processes of their own, in an order that turns
round every round, so that what else the machine does falls on both alike. Time is processor time with one thread, after
a first call that is not counted. A speed below .98 of the other's counts against this tree, as does a figure that
differs by more than rounding: counts of neurons may, where a text met in another batch turned a sign near zero; greedy
tokens may not. Control: this tree beside a copy of itself, which shows how far two equal trees lie apart. Nothing is
drawn at random but the bootstrap of the ratio.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from babelscope.controls.bootstrap_draws import draw_items
from babelscope.files.writing import write_text
from babelscope.runs import Run, environment, run_experiment

ROOT = Path(__file__).parents[1]
WORKLOADS = Path(__file__).with_name("commit_workloads.py")
LEAST_SPEED = 0.98
"""Of the other commit's speed, at least."""
HERE, OTHER, COPY = "this tree", "the other commit", "a copy of this tree"


@dataclass(frozen=True)
class Config:
    other: str
    """A commit of this repository, such as HEAD~1."""
    rounds: int = 7
    repeats: int = 3
    """Calls of each workload in a process, of which the quickest counts."""
    out: str = ""
    """A .jsonl file for the rows; empty: the run's own results only."""


class Timed(NamedTuple):
    """One process in one tree."""

    seconds: dict[str, float]
    values: dict[str, list[float]]


def run(config: Config, run: Run) -> None:
    """Both trees and the control in every round; then a row for each workload."""
    with tempfile.TemporaryDirectory() as folder:
        trees = {HERE: ROOT, OTHER: Path(folder) / "other", COPY: Path(folder) / "copy"}
        check_out(config.other, trees[OTHER])
        check_out("HEAD", trees[COPY])
        timed: dict[str, list[Timed]] = {name: [] for name in trees}
        for number in range(config.rounds):
            for name in [*trees][:: 1 if number % 2 else -1]:
                timed[name].append(work_in(trees[name], config.repeats, Path(folder) / f"compiled {name}"))
    rows = [row for workload in timed[HERE][0].seconds for row in compared(workload, timed)]
    run.log(rows)
    if config.out:
        facts = {"other": commit_name(config.other), "rounds": config.rounds, "repeats": config.repeats}
        lines = ({"config": facts, "environment": environment()}, *rows)
        write_text(Path(config.out), "".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines))


def commit_name(commit: str) -> str:
    """Its hash, date and first line."""
    words = ["git", "-C", str(ROOT), "log", "-1", "--format=%h %as %s", commit]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


def check_out(commit: str, folder: Path) -> None:
    """The files of a commit, in a new folder; without git's own, and without what is not committed."""
    folder.mkdir()
    words = ["git", "-C", str(ROOT), "archive", commit]
    archive = subprocess.run(words, capture_output=True, check=True).stdout
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive, check=True)


def work_in(tree: Path, repeats: int, compiled: Path) -> Timed:
    """The workloads in a process that imports one tree's library."""
    environ = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(str(tree / name) for name in ("src", "kernels")),
        "PYTHONPYCACHEPREFIX": str(compiled),
        "OMP_NUM_THREADS": "1",
    }
    words = [sys.executable, str(WORKLOADS), str(tree), str(repeats)]
    said = subprocess.run(words, env=environ, capture_output=True, text=True, check=False)
    if said.returncode:
        raise RuntimeError(f"the workloads in {tree} ended in:\n{said.stderr[-2000:]}")
    answer = json.loads(said.stdout.splitlines()[-1])
    return Timed(answer["seconds"], answer["values"])


def compared(workload: str, timed: dict[str, list[Timed]]) -> list[dict[str, Any]]:
    """This tree beside the other commit, and beside its copy: seconds, ratio with its interval, and the values."""
    here = [one.seconds[workload] for one in timed[HERE]]
    rows = []
    for name in (OTHER, COPY):
        there = [one.seconds[workload] for one in timed[name]]
        speed, low, high = ratio_interval(there, here)
        rows.append(
            {
                "workload": workload,
                "beside": name,
                "seconds": median(here),
                "seconds_there": median(there),
                "speed": speed,
                "low": low,
                "high": high,
                "as_fast": speed >= LEAST_SPEED,
                "largest_difference": largest_difference(
                    timed[HERE][0].values[workload], timed[name][0].values[workload]
                ),
            }
        )
    return rows


def median(values: Sequence[float]) -> float:
    return float(torch.tensor(values, dtype=torch.float64).quantile(0.5))


def ratio_interval(top: Sequence[float], bottom: Sequence[float]) -> tuple[float, float, float]:
    """Median of the ratios of pairs, with its bootstrap interval over rounds."""
    ratios = torch.tensor(top, dtype=torch.float64) / torch.tensor(bottom, dtype=torch.float64)
    drawn = ratios[draw_items(len(ratios), 1000, torch.Generator().manual_seed(0))].quantile(0.5, dim=1)
    return float(ratios.quantile(0.5)), float(drawn.quantile(0.025)), float(drawn.quantile(0.975))


def largest_difference(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Between two lists of figures, in parts of the largest of them; none where there are not as many."""
    if len(one) != len(other):
        return None
    a, b = torch.tensor(one, dtype=torch.float64), torch.tensor(other, dtype=torch.float64)
    return float((a - b).abs().max() / a.abs().max().clamp_min(1e-300))


if __name__ == "__main__":
    run_experiment(Config, run)
