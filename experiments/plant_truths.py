"""Does every method find what was put into a model, and nothing else?

Small models are made in seconds: one is written down by hand, so that each language's neurons, heads, directions,
concepts and words are known; others are trained on two languages of one grammar, with chosen share, order and
likeness. Recall and precision of what each method names are over sets of things, see `planted.methods`. Controls: a
random subspace, a random direction, a model without languages. A method speaks against itself where it misses a truth
or names another thing.
"""

import functools
import json
import time
from dataclasses import dataclass
from pathlib import Path

from planted.methods import CHECKS, Laboratory
from planted.upbringings import UPBRINGING_CHECKS, Nursery

from babelscope.files.writing import write_text
from babelscope.runs import Run, commit, environment, run_experiment


@dataclass(frozen=True)
class Config:
    seeds: tuple[int, ...] = (0, 1, 2)
    """Of the models and of the draws."""
    trained: bool = True
    """Also the models that are trained, some seconds each."""
    out: str = "docs/measured"
    """Folder for planted.jsonl."""


def run(config: Config, run: Run) -> None:
    for seed in config.seeds:
        laboratory, nursery = Laboratory(seed), Nursery(seed)
        checks = [functools.partial(check, laboratory) for check in CHECKS]
        checks += [functools.partial(check, nursery) for check in UPBRINGING_CHECKS if config.trained]
        for check in checks:
            began = time.process_time()
            rows = [outcome.row() for outcome in check()]
            spent = round(time.process_time() - began, 1)
            run.log([{"seed": seed, **row, "processor_seconds_of_check": spent} for row in rows])
    facts = {"seeds": list(config.seeds), "environment": environment(), **commit()}
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in (facts, *run.results())]
    write_text(Path(config.out) / "planted.jsonl", "".join(lines))


if __name__ == "__main__":
    run_experiment(Config, run)
