"""What do hashes, syncs and checkpoints cost beside the work that they keep: a pass over text, and a training?

Everything that is written while a pass and a training run as they do by default, and what is written at their end, is
timed on the clock: hashing, writing, and waiting for the disk. The control is the processor time of the whole run,
which other programs on the machine do not lengthen; the clock on one side and the processor on the other make the
share an upper bound. A share above the bar counts against the claim. More than one round stands for more than one seed.
"""

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

import babelscope as bs
from babelscope.files import state_folder, tensor_files, writing
from babelscope.files.writing import write_text
from babelscope.runs import Run, environment, run_experiment
from babelscope.subnetworks import train_subnetwork


@dataclass(frozen=True)
class Config:
    model: str = "reference"
    tokens: int = 30_000
    """Tokens a language that are observed, five languages."""
    steps: int = 120
    """Of the training."""
    rounds: int = 2
    bar: float = 0.03
    threads: int = 1
    out: str = ""
    """Folder for saving.jsonl with all rounds; empty keeps them in the run's own folder."""


class Clock:
    """Seconds in the writer of files, however deep the calls are nested."""

    def __init__(self) -> None:
        self.seconds, self.depth, self.calls = 0.0, 0, 0

    def timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **given: Any) -> Any:
            began = time.perf_counter()
            self.depth += 1
            try:
                return function(*args, **given)
            finally:
                self.depth -= 1
                if not self.depth:
                    self.seconds += time.perf_counter() - began
                    self.calls += 1

        return call


@contextmanager
def clocked() -> Iterator[Clock]:
    """Time all that writes: states of runs, and saved artifacts."""
    clock = Clock()
    places = [
        (state_folder.StateFolder, "write"),
        (bs.Observation, "save"),
        (bs.Delta, "save"),
        (writing, "_sync"),
        (tensor_files, "hash_file"),
    ]
    earlier = [(owner, name, getattr(owner, name)) for owner, name in places]
    for owner, name, function in earlier:
        setattr(owner, name, clock.timed(function))
    try:
        yield clock
    finally:
        for owner, name, function in earlier:
            setattr(owner, name, function)


def row(name: str, number: int, work: Callable[[], Any]) -> dict[str, Any]:
    """What was written during some work, and how long it took."""
    busy, began = time.process_time(), time.perf_counter()
    with clocked() as clock:
        work()
    processor = time.process_time() - busy
    return {
        "work": name,
        "round": number,
        "processor_seconds": round(processor, 2),
        "seconds": round(time.perf_counter() - began, 2),
        "saving_seconds": round(clock.seconds, 3),
        "writes": clock.calls,
        "share": round(clock.seconds / processor, 5),
    }


def run(config: Config, run: Run) -> None:
    torch.set_num_threads(config.threads)
    model, tokenizer = bs.open_model(config.model, device="cpu")
    languages = ["en", "de", "fi", "ru", "hi"]
    texts = bs.load_corpus("reference", languages, split="train")
    for number in range(config.rounds):
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)

            def observe(folder: Path = folder) -> None:
                bs.observe(
                    model, tokenizer, texts, tokens_per_language=config.tokens, checkpoint=folder / "checkpoint"
                ).save(folder / "observation")

            rows = [row("observe", number, observe)]
            neurons = bs.select_lape(bs.Observation.load(folder / "observation"), top_rate=0.01)["fi"]

            def train(folder: Path = folder, neurons: bs.NeuronSet = neurons) -> None:
                train_subnetwork(
                    model, tokenizer, neurons, texts["fi"], steps=config.steps, checkpoint=folder / "training"
                ).save(folder / "delta")

            run.log([*rows, row("training", number, train)])
    if config.out:
        found = run.results()
        parts = {name: [r["share"] for r in found if r["work"] == name] for name in ("observe", "training")}
        totals = [
            {"work": name, "largest": max(s), "bar": config.bar, "met": max(s) <= config.bar}
            for name, s in parts.items()
        ]
        head = {"config": {**asdict(config), "out": ""}, "environment": environment()}
        write_text(Path(config.out) / "saving.jsonl", "".join(json.dumps(r) + "\n" for r in [head, *found, *totals]))


if __name__ == "__main__":
    run_experiment(Config, run)
