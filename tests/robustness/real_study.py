"""A study of a model from disk, killed at random moments of every stage: to the same bits, and at what loss of time?

    python tests/robustness/real_study.py --model FOLDER --kills 3 --work FOLDER --out ROWS

First the study runs whole, then again, killed so many times in each stage, each time gone on with by --resume. A kill
loses what was computed since something was last written into the study's folder. The longest stretch without a write
in the whole run is what a kill at the worst moment would lose. What is done stands in --work, and is not done again.
"""

import json
import logging
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
import tyro

sys.path.insert(0, str(Path(__file__).parents[1]))

from robustness.kills import contents

from babelscope.cli import main as program
from babelscope.files.writing import append_lines, write_text
from babelscope.runs import environment

STAGES = ("observe", "identify", "control", "ablate", "steer")
TICK = os.sysconf("SC_CLK_TCK")
POLL = 0.05
FEW = "--tokens-per-language 2500 --choose-tokens 200 --ablate-tokens 200 --part-tokens 0 --draws 2 --resamples 20"
STEERED = "--script-documents 4 --layers 6 --strengths 1 --dev-prompts 2 --test-prompts 3 --random-prompts 2"


@dataclass(frozen=True)
class Config:
    """What is studied, and how often it is killed."""

    model: str
    """Folder."""
    work: Path
    """Folder for the two studies."""
    corpus: str = "reference"
    languages: tuple[str, ...] = ("en", "fi", "ru")
    flags: str = f"{FEW} {STEERED}"
    """Further words of the command."""
    dtype: str = "bfloat16"
    kills: int = 3
    """In each stage."""
    seed: int = 0
    """Of the moments."""
    out: str = ""
    """File of rows; empty prints them."""


class Lost(NamedTuple):
    """What a kill at a moment loses: what came since the last write, or since the run began."""

    seconds: float = 0.0
    processor_seconds: float = 0.0
    stage: str = "open"


class Ended(NamedTuple):
    """A run that came to its end or was killed."""

    code: int
    seconds: float
    processor_seconds: float
    lost: Lost
    """By an end at this moment."""
    most: Lost
    """By a kill at the worst moment."""


def start(words: list[str], said: Path) -> int:
    """Fork a process that runs a command; its id."""
    process = os.fork()
    if process:
        return process
    with said.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        os._exit(program(words))


def processor_seconds(process: int) -> float:
    """Of a process so far, all its threads."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def last_write(folder: Path) -> float:
    """When something in a folder last got its name or was removed, as seconds since 1970."""
    newest = 0.0
    for place in (folder, *folder.glob("*"), *folder.glob("stages/*")):
        try:
            newest = max(newest, place.stat().st_mtime)
        except FileNotFoundError:  # removed between the two lines
            continue
    return newest


def stage_of(folder: Path) -> str:
    """The stage under way; "open" before the first."""
    under_way = [name for name in STAGES if (folder / "stages" / f"{name}.work").is_dir()]
    return under_way[0] if under_way else "open"


def watch(words: list[str], folder: Path, until: Callable[[str, float], bool] = lambda stage, seconds: False) -> Ended:
    """Run a command that writes into a folder, and kill it as soon as `until` says so.

    until: is told the stage under way and its seconds so far.
    """
    began = entered = written = time.time()
    process, stage, busy, busy_then = start(words, folder.parent / "said.log"), "open", 0.0, 0.0
    most = lost = Lost()
    while True:
        finished, status = os.waitpid(process, os.WNOHANG)
        now = time.time()
        if finished:
            return Ended(os.waitstatus_to_exitcode(status), now - began, busy, lost, most)
        busy = processor_seconds(process)
        lost = Lost(now - written, busy - busy_then, stage)
        most = max(most, lost)
        if (last := last_write(folder)) > written:
            written, busy_then = last, busy
        if stage_of(folder) != stage:
            stage, entered = stage_of(folder), now
        if until(stage, now - entered):
            lost = lost._replace(stage=stage)
            os.kill(process, signal.SIGKILL)
        time.sleep(POLL)


def whole_row(words: list[str], folder: Path) -> dict[str, Any]:
    """The uninterrupted study, and its seconds by stage."""
    end = watch([*words, "--out", str(folder)], folder)
    assert end.code == 0, (folder.parent / "said.log").read_text()[-2_000:]
    stages = json.loads((folder / "results.json").read_text())["seconds"]
    return {"check": "uninterrupted", **as_row(end), "stages": stages}


def as_row(end: Ended) -> dict[str, Any]:
    """A run as JSON."""
    return {**end._asdict(), "lost": end.lost._asdict(), "most": end.most._asdict()}


def kill_rows(
    words: list[str], folder: Path, stages: dict[str, float], config: Config, earlier: Counter[str]
) -> Iterator[dict[str, Any]]:
    """A row for each kill; a stage goes on after each, and so the moments are parts of what it takes whole.

    earlier: kills in each stage that were made already.
    """
    moments = random.Random(config.seed)
    names = [name for name in STAGES if name in stages]
    plan = [(name, place, moments.random()) for name in names for place in range(config.kills)]
    for name, place, share in plan:
        if place < earlier[name]:
            continue
        after = share * stages[name] / config.kills
        until = partial(reached, names[names.index(name) :], after)
        resume = ["--resume"] if folder.exists() else []
        end = watch([*words, "--out", str(folder), *resume], folder, until)
        if end.code == 0:
            return
        assert end.code == -signal.SIGKILL, (folder.parent / "said.log").read_text()[-2_000:]
        yield {"check": "kill", "stage": end.lost.stage, **as_row(end)}


def reached(names: list[str], after: float, stage: str, seconds: float) -> bool:
    """Whether the first of some stages has run so long, or a later one has begun."""
    return (stage == names[0] and seconds >= after) or stage in names[1:]


def measure(config: Config) -> list[dict[str, Any]]:
    """All rows, those of an earlier call with the same folder first."""
    journal = config.work / "trials.jsonl"
    whole, killed = config.work / "whole" / "out", config.work / "killed" / "out"
    whole.parent.mkdir(parents=True, exist_ok=True)
    killed.parent.mkdir(exist_ok=True)
    words = ["study", config.model, config.corpus, "--languages", *config.languages, *config.flags.split()]
    words += ["--device", "cpu", "--dtype", config.dtype, "--json"]
    rows = [json.loads(line) for line in journal.read_text().splitlines()] if journal.exists() else []

    def keep(row: dict[str, Any]) -> None:
        rows.append(row)
        append_lines(journal, [json.dumps(row)])

    if not rows:
        keep(whole_row(words, whole))
    if rows[-1]["check"] != "resumed":
        earlier = Counter(row["stage"] for row in rows[1:])
        for row in kill_rows(words, killed, rows[0]["stages"], config, earlier):
            keep(row)
        end = watch([*words, "--out", str(killed), "--resume"], killed)
        keep({"check": "resumed", **as_row(end)})
    return [*rows, summary(rows, whole, killed)]


def summary(rows: list[dict[str, Any]], whole: Path, killed: Path) -> dict[str, Any]:
    """How the study ended that was killed, beside the one that was not."""
    kills = [row for row in rows if row["check"] == "kill"]
    busy = sum(row["processor_seconds"] for row in rows[1:]) - rows[0]["processor_seconds"]
    left = sorted(path.name for path in killed.parent.iterdir() if path.name not in ("out", "said.log"))
    return {
        "check": "study of a real model",
        "kills": {name: sum(row["stage"] == name for row in kills) for name in {row["stage"]: 0 for row in kills}},
        "equal": rows[-1]["code"] == 0 and contents(killed) == contents(whole),
        "left": left,
        "seconds": rows[0]["seconds"],
        "most_lost": max(row["lost"]["seconds"] for row in kills),
        "most_processor_seconds_lost": max(row["lost"]["processor_seconds"] for row in kills),
        "worst_moment": rows[0]["most"],
        "processor_seconds_again_per_kill": busy / len(kills),
    }


def main(config: Config) -> None:
    """Measure, and write or print the rows."""
    torch.set_num_threads(1)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    logging.disable(logging.CRITICAL)
    settings = {**asdict(config), "model": Path(config.model).name, "work": "", "out": ""}
    rows = [{"config": settings, "environment": environment()}, *measure(config)]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    write_text(config.out, text) if config.out else sys.stdout.write(text)


if __name__ == "__main__":
    main(tyro.cli(Config))
