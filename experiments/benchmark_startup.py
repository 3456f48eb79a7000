"""How long does each command take before its work begins?

Wall and processor time of bare python, of the import of torch, of every verb's `--help`, and of `identify` and `direct`
with their own defaults on a small saved observation, each in a process of its own, one after another in every round, so
that what else the machine does falls on all alike. The bars: `--help` at most 0.6 s over bare python, `identify` and
`direct` at most 1.0 s over the import of torch, in processor time: with one thread it is what an idle machine takes,
also where other work disturbs the wall time. A bar that is missed counts against the claim. Nothing is drawn at random;
rounds stand for a seed. Compiled files are written by a first round that is not counted, as an installation has them.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from babelscope import load_corpus, observe, open_model
from babelscope.cli.verbs import VERBS
from babelscope.files.writing import write_text
from babelscope.runs import Run, environment, run_experiment


@dataclass(frozen=True)
class Config:
    rounds: int = 5
    threads: int = 1
    tokens: int = 3_000
    """Tokens a language of the small observation."""
    languages: tuple[str, ...] = ("en", "fi")
    help_bar: float = 0.6
    """Seconds over bare python."""
    work_bar: float = 1.0
    """Seconds over the import of torch."""
    out: str = ""
    """Folder for startup.jsonl; empty: the run's own results only."""


def run(config: Config, run: Run) -> None:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        model, tokenizer = open_model("reference", device="cpu")
        texts = load_corpus("reference", config.languages, split="train")
        observe(
            model, tokenizer, texts, sites=["mlp_gate", "resid_out"], tokens_per_language=config.tokens, shards=32
        ).save(place / "observation")
        environ = {**os.environ, "OMP_NUM_THREADS": str(config.threads), "PYTHONPYCACHEPREFIX": str(place / "compiled")}
        environ.pop("PYTHONDONTWRITEBYTECODE", None)
        wall: dict[str, list[float]] = {}
        busy: dict[str, list[float]] = {}
        for number in range(config.rounds + 1):
            for name, words in commands(place, number):
                started, worked = time.perf_counter(), processor_time()
                subprocess.run([sys.executable, *words], env=environ, capture_output=True, check=True)
                if number:
                    wall.setdefault(name, []).append(time.perf_counter() - started)
                    busy.setdefault(name, []).append(processor_time() - worked)
    rows = [row(name, wall, busy, config) for name in wall]
    run.log(rows)
    if config.out:
        facts = asdict(config)
        facts.pop("out")
        lines = [
            json.dumps(line, ensure_ascii=False) for line in ({"config": facts, "environment": environment()}, *rows)
        ]
        write_text(Path(config.out) / "startup.jsonl", "\n".join(lines) + "\n")


def commands(place: Path, number: int) -> list[tuple[str, list[str]]]:
    """What is timed, by name: words after python."""
    tool = ["-m", "babelscope"]
    observation = str(place / "observation")
    return [
        ("python", ["-c", "pass"]),
        ("import torch", ["-c", "import torch"]),
        *((f"{verb} --help", [*tool, *verb.split(), "--help"]) for verb in VERBS),
        ("identify", [*tool, "identify", observation, "--out", str(place / f"set{number}")]),
        (
            "direct",
            [*tool, "direct", observation, "--target", "fi", "--layer", "1", "--out", str(place / f"way{number}")],
        ),
    ]


def processor_time() -> float:
    """Seconds of all processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def row(name: str, wall: dict[str, list[float]], busy: dict[str, list[float]], config: Config) -> dict:
    """A command's median, and the median over rounds of what it took more than its base."""
    base, bar = ("python", config.help_bar) if name.endswith("--help") else ("import torch", config.work_bar)
    counted = name not in ("python", "import torch")
    more = median([a - b for a, b in zip(busy[name], busy[base], strict=True)]) if counted else None
    return {
        "command": name,
        "seconds": [round(value, 3) for value in wall[name]],
        "processor_seconds": [round(value, 3) for value in busy[name]],
        "median": round(median(wall[name]), 3),
        "processor_median": round(median(busy[name]), 3),
        "over": base if counted else None,
        "more": None if more is None else round(more, 3),
        "bar": bar if counted else None,
        "met": more <= bar if more is not None else None,
    }


def median(values: Sequence[float]) -> float:
    return float(np.median(values))


if __name__ == "__main__":
    run_experiment(Config, run)
