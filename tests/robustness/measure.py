"""Damage, kill, fill and race what the toolkit writes, and say how often something went wrong.

    python tests/robustness/measure.py --seeds 5 --every 11 --races 1 --sizes 3000 > docs/measured/robustness.jsonl

Seconds with the settings of the tests, hours with --every 1 and many seeds. A row a check, and one a thing that is bad.
"""

import json
import logging
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import tyro

sys.path.insert(0, str(Path(__file__).parents[1]))

from robustness.kills import Killed, kill_and_repeat, make_inputs, on_a_full_disk, two_at_once, uninterrupted, verbs
from robustness.trials import good, summary, timed

from babelscope.files.writing import write_text
from babelscope.runs import environment


@dataclass(frozen=True)
class Config:
    """How much is tried."""

    seeds: int = 1
    """Mutations of each kind by each mutator, in each of two ways; 0 leaves them out."""
    every: int = 7
    """Every which file event of a verb it is killed before; 0 leaves kills out."""
    verbs: tuple[str, ...] = ()
    """Of the kills, full disks and races; none means all."""
    sizes: tuple[int, ...] = (100, 3_000, 20_000, 60_000)
    """Bytes that a file may have on a full disk."""
    races: int = 3
    """Pairs of runs of each verb with one --out."""
    out: str = ""
    """File of rows; empty prints them."""


def measure(config: Config, folder: Path) -> Iterator[dict[str, Any]]:
    """All rows."""
    yield {"config": {**asdict(config), "out": ""}, "environment": environment()}
    if config.seeds:
        trials, seconds = timed(folder / "mutations", range(config.seeds))
        yield from summary(trials, seconds)
        yield from ({"bad": "mutation", **trial._asdict()} for trial in trials if not good(trial))
    if not config.every:
        return
    make_inputs(folder)
    for name in config.verbs or verbs(folder):
        began = time.perf_counter()
        whole, events = uninterrupted(folder, name)
        for check, trial, values in (
            ("kill", kill_and_repeat, range(1, events + 1, config.every)),
            ("full disk", on_a_full_disk, config.sizes),
            ("two at once", two_at_once, range(config.races)),
        ):
            yield from rows(check, name, [trial(folder, name, value, whole) for value in values])
        yield {"check": "seconds", "verb": name, "events": events, "seconds": round(time.perf_counter() - began, 1)}


def rows(check: str, name: str, ended: list[Killed]) -> Iterator[dict[str, Any]]:
    """How many of some runs ended as the uninterrupted one, and each that did not."""
    yield {"check": check, "verb": name, "n": len(ended), "equal": sum(row.outcome == "equal" for row in ended)}
    yield from ({"bad": check, **row._asdict()} for row in ended if row.outcome != "equal")


def main(config: Config) -> None:
    """Measure, and write or print the rows."""
    torch.set_num_threads(1)
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as folder:
        lines = []
        for row in measure(config, Path(folder)):
            lines.append(json.dumps(row, ensure_ascii=False).replace(folder, "FOLDER"))
            if not config.out:
                sys.stdout.write(lines[-1] + "\n")
    if config.out:
        write_text(config.out, "\n".join(lines) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Config))
