"""Does `babelscope adapt` with its defaults help a model that it has never seen?

The command itself, in a process of its own, on models from disk and languages of a corpus: neurons of lowest activation
entropy, the learning rate that the command takes by itself, and few steps. The control is the untouched model on the
same test text, which the training never reads. The estimate that the command prints before its first step stands beside
what the steps took. Against the default rate: a gain of zero or less, or a run that is refused because no step helped,
in any pair of model and language. One seed: rows and text are what a user gets, nothing is averaged.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from babelscope import load_corpus, observe, open_model, select_lape
from babelscope.corpus import Corpus
from babelscope.files.writing import write_text
from babelscope.runs import Run, environment, run_experiment

ESTIMATE = re.compile(r"measurements on validation text: about ([\d.]+) (s|min|h), memory up to ([\d,]+) MiB")
UNITS = {"s": 1, "min": 60, "h": 3600}


@dataclass(frozen=True)
class Config:
    models: tuple[str, ...]
    """Folders, or names on the hub."""
    corpus: str
    """With train and valid text of all languages; valid text is cut in two, for valid and test."""
    languages: tuple[str, ...] = ("eu", "fi")
    """Trained, each by itself."""
    others: tuple[str, ...] = ("en", "ru", "zh")
    """Beside them in the selection of neurons; en is measured too."""
    steps: int = 30
    tokens_per_step: int = 512
    train_lines: int = 2000
    held_out_lines: int = 40
    """Of valid and of test text each."""
    observe_tokens: int = 3000
    """A language, to find the neurons."""
    top_rate: float = 0.05
    threads: int = 1
    earlier: str = ""
    """Folder of a run that was stopped: the pairs that it measured are taken, and none is measured anew."""
    out: str = ""
    """A file for the rows; empty: the run's own results only."""


def run(config: Config, run: Run) -> None:
    """One file a pair of model and language, so that a stopped run goes on."""
    torch.set_num_threads(config.threads)
    if config.earlier:
        pairs = [(Path(name).name, tag) for name in config.models for tag in config.languages]
        files = [Path(config.earlier) / f"{name}-{tag}.json" for name, tag in pairs]
        write_rows(config, run, [json.loads(file.read_text(encoding="utf-8")) for file in files if file.is_file()])
        return
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        texts = cut(config, place / "corpus")
        for name in config.models:
            neurons = place / Path(name).name
            for tag in config.languages:
                file = run.folder / f"{Path(name).name}-{tag}.json"
                if not file.is_file():
                    if not neurons.is_dir():
                        select(name, texts, config).save(neurons)
                    write_text(file, json.dumps(adapted(name, neurons, place, tag, config)))
                rows.append(json.loads(file.read_text(encoding="utf-8")))
    write_rows(config, run, rows)


def write_rows(config: Config, run: Run, rows: list[dict[str, Any]]) -> None:
    """The rows, in the run's folder and where they were asked for."""
    (run.folder / "results.jsonl").unlink(missing_ok=True)
    run.log(rows)
    if config.out:
        facts = {
            key: value for key, value in asdict(config).items() if key not in ("out", "models", "corpus", "earlier")
        }
        lines = [{"config": facts, "environment": environment()}, *rows]
        write_text(Path(config.out), "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


def cut(config: Config, folder: Path) -> Corpus:
    """Train, valid and test text as files, for the command; the train text of all languages comes back."""
    tags = (*config.languages, *config.others)
    train, held = (load_corpus(config.corpus, tags, split=split) for split in ("train", "valid"))
    n = config.held_out_lines
    for split, source, lines in (
        ("train", train, slice(config.train_lines)),
        ("valid", held, slice(n)),
        ("test", held, slice(n, 2 * n)),
    ):
        (folder / split).mkdir(parents=True)
        for tag in (*config.languages, "en"):
            text = "\n".join(document.text for document in source[tag][lines]) + "\n"
            write_text(folder / split / f"{tag}.txt", text)
    return train


def select(name: str, texts: Corpus, config: Config) -> Any:
    """Neurons of lowest activation entropy."""
    model, tokenizer = open_model(name, device="cpu")
    observation = observe(
        model, tokenizer, texts, sites=["mlp_gate"], tokens_per_language=config.observe_tokens, shards=0
    )
    return select_lape(observation, top_rate=config.top_rate)


def adapted(name: str, neurons: Path, place: Path, tag: str, config: Config) -> dict[str, Any]:
    """One call of the command, as a row."""
    out = place / f"{neurons.name}-{tag}"
    words = ["adapt", name, str(neurons), str(place / "corpus"), "--language", tag, "--out", str(out)]
    words += ["--steps", str(config.steps), "--tokens-per-step", str(config.tokens_per_step), "--device", "cpu"]
    command = [sys.executable, "-m", "babelscope", *words, "--json"]
    environ = {**os.environ, "OMP_NUM_THREADS": str(config.threads)}
    with tempfile.TemporaryFile("w+") as said, tempfile.TemporaryFile("w+") as printed:
        process = subprocess.Popen(command, env=environ, stdout=printed, stderr=said)
        _, status, used = os.wait4(process.pid, 0)
        for stream in (said, printed):
            stream.seek(0)
        lines, found = said.read(), json.loads(printed.read())
    process.returncode = os.waitstatus_to_exitcode(status)
    facts = {
        "model": Path(name).name,
        "language": tag,
        **estimated(lines),
        "peak_mib": used.ru_maxrss // 1024,
        "exit_code": process.returncode,
    }
    return {**facts, **outcome(found, tag)}


def outcome(found: Mapping[str, Any], tag: str) -> dict[str, Any]:
    """What the row keeps of the command's result, or of its refusal."""
    if "error" in found:
        return {"gain": 0.0, "error": found["error"]}
    kept = ("learning_rate", "trained", "gain", "harm")
    return {**{key: found[key] for key in kept}, "before": found["before"][tag], "after": found["after"][tag]}


def estimated(lines: str) -> dict[str, float]:
    """The estimate of before the first step, and the seconds that the bar of the steps shows at its end."""
    said = ESTIMATE.search(lines)
    bars = re.findall(r"100%[^\r\n]*?\[(?:(\d+):)?(\d+):(\d+)<", lines)
    if said is None or not bars:
        return {}
    hours, minutes, seconds = (int(part or 0) for part in bars[-1])
    return {
        "estimated_seconds": float(said[1]) * UNITS[said[2]],
        "seconds": 3600 * hours + 60 * minutes + seconds,
        "estimated_mib": int(said[3].replace(",", "")),
    }


if __name__ == "__main__":
    run_experiment(Config, run)
