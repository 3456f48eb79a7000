"""Does what the study says of the bundled model hold in a real one?

The command itself, in a process of its own, on a model from disk and languages of a corpus: train text to observe, one
half of the valid text to choose on, the other to score on. All controls are the study's own: random sets of equal size,
other texts, no steering, random directions, other languages' directions, native answers. Against the claims: own text
that is not hurt most, or steering that does no better than its controls, in more languages than in the bundled model.
One seed and one text. The estimate that the command prints before it begins stands beside what it took.
"""

import json
import os
import random
import re
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from babelscope import load_corpus
from babelscope.files.writing import write_text
from babelscope.report import write_report
from babelscope.report.results import read_results
from babelscope.report.results.record_json import to_json
from babelscope.runs import Run, run_experiment
from babelscope.study import MAIN

ESTIMATE = re.compile(r"^(\w+): about ([\d.]+) (s|min|h)\b")
UNITS = {"s": 1, "min": 60, "h": 3600}
COMPARED = "bfloat16, as the weights are stored"


@dataclass(frozen=True)
class Config:
    model: str
    """Folder, or name on the hub."""
    corpus: str
    """With train and valid text of all languages."""
    languages: tuple[str, ...] = MAIN
    train_lines: int = 2500
    questions: str = ""
    """Folder of questions to a chat model, `<tag>.txt`; its own template is used. Empty: beginnings of the texts."""
    flags: tuple[str, ...] = ()
    """Further words of the command, such as amounts."""
    threads: int = 2
    study: str = ""
    """Folder of the study; empty: in the run's own. An interrupted study goes on, a finished one is only read."""
    rows: str = ""
    """A .json file for the study's results without its answers, and for what it took; empty: the run's own only."""
    page: str = ""
    """An .html file for its page, with prompts and answers where `questions` was asked; empty: none."""


def run(config: Config, run: Run) -> None:
    """Run the command, or go on with it; then take what it wrote."""
    folder = Path(config.study or run.folder / "study")
    said = folder.with_name(f"{folder.name}.log")
    if not (folder / "results.json").is_file():
        cut(config, run.folder / "corpus")
        words = ["study", config.model, str(run.folder / "corpus"), "--out", str(folder), *config.flags]
        words += ["--chat", "--questions", config.questions] if config.questions else []
        words += ["--device", "cpu", *(["--resume"] if folder.exists() else [])]
        environ = {**os.environ, "OMP_NUM_THREADS": str(config.threads)}
        command = [sys.executable, "-m", "babelscope", *words]
        done = subprocess.run(command, env=environ, stderr=subprocess.PIPE, text=True, check=False)
        earlier = said.read_text(encoding="utf-8") if said.is_file() else ""
        write_text(said, earlier + done.stderr)
        done.check_returncode()
    results, log = read_results(folder), said.read_text(encoding="utf-8")
    added = {
        "expected_seconds": estimated(log),
        "number_format": [line for line in log.splitlines() if line.startswith(COMPARED)][:1],
        "threads": config.threads,
        "flags": list(config.flags),
    }
    run.log([{"model": Path(config.model).name, "expected": added["expected_seconds"], "took": dict(results.seconds)}])
    if config.rows:
        if results.steering is not None:  # The page shows the samples.
            results = replace(results, steering=replace(results.steering, samples=None))
        write_text(Path(config.rows), json.dumps({**to_json(results), **added}, ensure_ascii=False, indent=1) + "\n")
    if config.page:
        # Prompts that are text of the corpus are not ours to hand on.
        write_report(folder, include_samples=bool(config.questions))
        write_text(Path(config.page), (folder / "report.html").read_text(encoding="utf-8"))


def cut(config: Config, folder: Path) -> None:
    """Train, valid and test text as files, for the command."""
    train, valid = (load_corpus(config.corpus, config.languages, split=split) for split in ("train", "valid"))
    for tag in config.languages:
        drawn = [*train[tag]]
        random.Random(0).shuffle(drawn)  # Sources stand one after another in such files.
        parts = {"train": drawn[: config.train_lines], "valid": valid[tag][::2], "test": valid[tag][1::2]}
        for split, documents in parts.items():
            folder.mkdir(parents=True, exist_ok=True)
            write_text(folder / f"{tag}.{split}.txt", "\n".join(document.text for document in documents) + "\n")


def estimated(log: str) -> dict[str, float]:
    """Seconds of each stage, as the command said before it began; the last time that it said so."""
    found = (ESTIMATE.match(line) for line in log.splitlines())
    return {match[1]: float(match[2]) * UNITS[match[3]] for match in found if match}


if __name__ == "__main__":
    run_experiment(Config, run)
