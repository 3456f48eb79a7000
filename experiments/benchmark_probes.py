"""How long does each probe of `babelscope probe --probe all` take on the bundled model?

Without the fit of a tuned lens, tracking over checkpoints, and circuits, which the verb leaves out unless asked.
The bars: 60 s a probe, 480 s together; a probe above its bar counts against the claim. Wall time and processor time
are read; with one thread the processor time is what an idle machine takes at most, also where other work disturbs the
wall time. What several probes share (sentence vectors, token lists) is in the time of the first that needs it. There is
no control and no seed to vary: rounds stand for those.
"""

import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from babelscope import open_model
from babelscope.files.writing import write_text
from babelscope.probes import PROBES, ProbeJob, run_probes
from babelscope.probes.probe_runs import measured_and_other
from babelscope.runs import Run, environment, run_experiment


@dataclass(frozen=True)
class Config:
    model: str = "reference"
    corpus: str = "reference"
    languages: tuple[str, ...] = ()
    """Tags; none means all of the corpus."""
    rounds: int = 1
    threads: int = 1
    probe_bar: float = 60.0
    """Seconds."""
    total_bar: float = 480.0
    out: str = ""
    """Folder for probe_times.jsonl; empty: the run's own results only."""


def run(config: Config, run: Run) -> None:
    torch.set_num_threads(config.threads)
    model, tokenizer = open_model(config.model, device="cpu")
    texts, others = measured_and_other(config.corpus, config.languages, "test", "train")
    rounds = []
    for _ in range(config.rounds):
        job = ProbeJob(model, tokenizer, texts, others, against="en", n_sentences=200, seed=0)
        with tempfile.TemporaryDirectory() as folder:
            rounds.append(run_probes(PROBES, job, Path(folder), leave_out=True))
    wall, busy = ([getattr(one, name) for one in rounds] for name in ("seconds", "processor_seconds"))
    count = rounds[0].rows
    rows = [
        row(name, [one[name] for one in wall], [one[name] for one in busy], config.probe_bar, count[name])
        for name in count
    ]
    totals = [[round(sum(one.values()), 1) for one in clock] for clock in (wall, busy)]
    rows.append(row("together", totals[0], totals[1], config.total_bar, sum(count.values())))
    run.log(rows)
    if config.out:
        facts = asdict(config)
        facts.pop("out")
        first = {"config": facts, "left_out": rounds[0].left_out, "environment": environment()}
        lines = [json.dumps(line, ensure_ascii=False) for line in (first, *rows)]
        write_text(Path(config.out) / "probe_times.jsonl", "\n".join(lines) + "\n")


def row(name: str, wall: Sequence[float], busy: Sequence[float], bar: float, rows: int) -> dict:
    median = float(np.median(wall))
    return {
        "probe": name,
        "seconds": wall,
        "processor_seconds": busy,
        "median": round(median, 1),
        "bar": bar,
        "met": median <= bar,
        "rows": rows,
    }


if __name__ == "__main__":
    run_experiment(Config, run)
