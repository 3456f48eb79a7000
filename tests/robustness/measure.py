"""Damage, kill, fill and race what the toolkit writes, and say how often something went wrong.

    python tests/robustness/measure.py --seeds 3 --calls 1 --every 8 --races 2 --sizes 3000 20000 --out ROWS
    python tests/robustness/measure.py --seeds 0 --every 0 --archives 200 --bad-calls --out ROWS

Seconds with the settings of the tests, hours with --every 1 and many seeds. A row a check, and one a thing that is bad.
With --out it goes on where an earlier call with the same settings was stopped: what is done stands in ROWS.trials.
"""

import io
import json
import logging
import os
import re
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
import tyro

sys.path.insert(0, str(Path(__file__).parents[1]))

from bad_calls import CALLS
from cli_calls import make_kinds
from robustness.archives import archive_rows
from robustness.kill_cases import make_inputs, verbs
from robustness.kills import (
    Killed,
    interrupt_and_repeat,
    kill_and_repeat,
    on_a_full_disk,
    terminate_and_repeat,
    two_at_once,
    uninterrupted,
)
from robustness.kinds import KINDS
from robustness.trials import Bench, Trial, good, summary

from babelscope.cli import main as program
from babelscope.cli.verbs import split_verb
from babelscope.files.writing import append_lines, write_text
from babelscope.runs import environment


@dataclass(frozen=True)
class Config:
    """How much is tried."""

    seeds: int = 1
    """Mutations of each kind by each mutator, in each of two ways; 0 leaves them out."""
    calls: int = 0
    """The same through the command line, for the kinds that a quick verb takes."""
    archives: int = 0
    """Cuts, and flipped bits, of compressed text in each of five formats."""
    bad_calls: bool = False
    """Every bad call of `bad_calls.py`, each in one line before a model is opened."""
    every: int = 7
    """Every which file event of a verb it is killed before; 0 leaves kills out."""
    interrupts: int = 5
    """Every which of these points Ctrl-C and SIGTERM are tried at too."""
    verbs: tuple[str, ...] = ()
    """Of the kills, full disks and races; none means all."""
    sizes: tuple[int, ...] = (100, 3_000, 20_000, 60_000)
    """Bytes that a file may have on a full disk."""
    races: int = 3
    """Pairs of runs of each verb with one --out."""
    out: str = ""
    """File of rows; empty prints them."""


class Journal:
    """What was tried so far, as lines of JSON in a file; without a file nothing is kept."""

    def __init__(self, config: Config) -> None:
        self.file = Path(f"{config.out}.trials") if config.out else None
        self.done: dict[str, Any] = {}
        if self.file is not None and self.file.exists():
            self.done = dict(map(json.loads, self.file.read_text().split("\n")[:-1]))
        if self.of("config", lambda: asdict(config)) != json.loads(json.dumps(asdict(config))):
            raise SystemExit(f"{self.file}: was begun with other settings; expected the same; remove it to start anew")

    def of(self, key: str, find: Callable[[], Any]) -> Any:
        """What was found under a key: earlier, or now."""
        if key not in self.done:
            self.done[key] = json.loads(json.dumps(find()))
            if self.file is not None:
                append_lines(self.file, [json.dumps([key, self.done[key]])])
        return self.done[key]


def measure(config: Config, folder: Path, journal: Journal) -> Iterator[dict[str, Any]]:
    """All rows."""
    yield {"config": {**asdict(config), "out": ""}, "environment": environment()}
    if config.seeds or config.calls:
        yield from mutations(config, folder / "mutations", journal)
    if config.archives:
        yield from journal.of("archives", lambda: [*archive_rows(folder / "archives", config.archives)])
    if config.bad_calls:
        yield from journal.of("bad calls", partial(bad_calls, folder / "calls"))
    if not config.every:
        return
    make_inputs(folder)
    for name in config.verbs or verbs(folder):
        began = time.perf_counter()
        whole, events = uninterrupted(folder, name)
        points = range(1, events + 1, config.every)
        for check, trial, values in (
            ("kill", kill_and_repeat, points),
            ("Ctrl-C", interrupt_and_repeat, points[:: config.interrupts]),
            ("SIGTERM", terminate_and_repeat, points[2 :: config.interrupts]),
            ("full disk", on_a_full_disk, config.sizes),
            ("two at once", two_at_once, range(config.races)),
        ):
            ended = [
                Killed(*journal.of(f"{check} {name} {value}", partial(trial, folder, name, value, whole)))
                for value in values
            ]
            yield from rows(check, name, ended)
        yield {"check": "seconds", "verb": name, "events": events, "seconds": round(time.perf_counter() - began, 1)}


def bad_calls(place: Path) -> list[dict[str, Any]]:
    """How many bad calls of every verb end with one line and exit code 1 or 2, and the others."""
    place.mkdir(parents=True)
    make_kinds(place)
    began, here, rows, verbs_tried = time.perf_counter(), Path.cwd(), [], set()
    os.chdir(place)
    try:
        for words in CALLS:
            out, err = io.StringIO(), io.StringIO()
            call_began = time.perf_counter()
            with redirect_stdout(out), redirect_stderr(err):
                code = call_code(words)
            line = re.fullmatch(r"babelscope[^\n]*: [^\n]{10,1300}\n", err.getvalue())
            fine = code in (1, 2) and line and not out.getvalue()
            if not fine or time.perf_counter() - call_began > 60:
                rows.append({"bad": "call", "words": words, "code": code, "stderr": err.getvalue()[-500:]})
            verbs_tried.add(split_verb(words)[0])
    finally:
        os.chdir(here)
    seconds = round(time.perf_counter() - began, 1)
    told = len(CALLS) - len(rows)
    return [{"check": "bad calls", "n": len(CALLS), "told": told, "verbs": len(verbs_tried), "seconds": seconds}, *rows]


def call_code(words: list[str]) -> int:
    """Exit code of a call; 99 for a traceback."""
    try:
        return program(words)
    except BaseException:  # noqa: BLE001 - what is looked for
        traceback.print_exc()
        return 99


def mutations(config: Config, folder: Path, journal: Journal) -> Iterator[dict[str, Any]]:
    """Rows of the damaged artifacts."""
    trials, began, bench = [], time.perf_counter(), cache(partial(Bench, folder))

    def of_kind(name: str) -> list[Trial]:
        return [*bench().all(name, range(config.seeds), calls=range(config.calls))]

    for name in KINDS:
        trials += [Trial(*trial) for trial in journal.of(f"mutations {name}", partial(of_kind, name))]
    yield from summary(trials, time.perf_counter() - began)
    yield from ({"bad": "mutation", **trial._asdict()} for trial in trials if not good(trial))


def rows(check: str, name: str, ended: list[Killed]) -> Iterator[dict[str, Any]]:
    """How many of some runs ended as the uninterrupted one, and each that did not."""
    yield {"check": check, "verb": name, "n": len(ended), "equal": sum(row.outcome == "equal" for row in ended)}
    yield from ({"bad": check, **row._asdict()} for row in ended if row.outcome != "equal")


def main(config: Config) -> None:
    """Measure, and write or print the rows."""
    torch.set_num_threads(1)
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        lines = []
        for row in measure(config, Path(folder), Journal(config)):
            lines.append(json.dumps(row, ensure_ascii=False).replace(folder, "FOLDER"))
            if not config.out:
                sys.stdout.write(lines[-1] + "\n")
    if config.out:
        write_text(config.out, "\n".join(lines) + "\n")
        Path(f"{config.out}.trials").unlink()


if __name__ == "__main__":
    main(tyro.cli(Config))
