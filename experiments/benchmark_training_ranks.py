"""How much sooner are the steps of `adapt` done by two processes of one launcher, and do they train the same?

The same command in one process and under torchrun, one thread each, with few steps and with many: the difference of the
two is the steps alone, without what opening, checking and measuring take. The control is the single process. Against
it: values that differ by more than the order of a sum, or no time saved. What a machine could give at most is measured
beside it: as many single processes at once, which share nothing but its cores and memory, and do that many steps in the
time of one of theirs.
"""

import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from babelscope import Delta, load_corpus, observe, open_model, select_lape
from babelscope.files.writing import write_text
from babelscope.runs import Run, environment, run_experiment


@dataclass(frozen=True)
class Config:
    model: str = "reference"
    """Folder, Hugging Face id, or "reference"."""
    corpus: str = "reference"
    language: str = "fi"
    other: str = "en"
    """Of the contrast that chooses neurons."""
    top_rate: float = 0.05
    steps: tuple[int, int] = (2, 18)
    tokens_per_step: int = 4096
    documents: int = 400
    """Of train text, and a tenth of it to measure on."""
    ranks: int = 2


def run(config: Config, run: Run) -> None:
    neurons, corpus = prepare(config, run.folder)
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", str(config.ranks)]
    seconds: dict[str, list[float]] = {}
    for name, start, processes in (("one", [], 1), ("ranks", launcher, 1), ("apart", [], config.ranks)):
        for steps in config.steps:
            outs = [run.folder / f"{name}-{steps}{f'-{number}' if number else ''}" for number in range(processes)]
            words = ["-m", "babelscope", "adapt", config.model, str(neurons), str(corpus)]
            words += ["--language", config.language, "--steps", str(steps), "--evaluate-every", str(max(config.steps))]
            words += ["--tokens-per-step", str(config.tokens_per_step), "--device", "cpu"]
            environ = {**os.environ, "OMP_NUM_THREADS": "1"}
            began = time.monotonic()
            started = [
                subprocess.Popen([sys.executable, *start, *words, "--out", str(out)], env=environ) for out in outs
            ]
            codes = [process.wait() for process in started]
            if any(codes):
                raise SystemExit(f"{name}, {steps} steps: a process ended with {max(codes, key=abs)}")
            seconds.setdefault(name, []).append(round(time.monotonic() - began, 2))
    one, ranks = (Delta.load(run.folder / f"{name}-{max(config.steps)}") for name in ("one", "ranks"))
    pairs = [(one.up, ranks.up), (one.down, ranks.down)]
    pairs += [(one.gate, ranks.gate)] if one.gate is not None and ranks.gate is not None else []
    per_step = {name: (many - few) / (config.steps[1] - config.steps[0]) for name, (few, many) in seconds.items()}
    run.log(
        [
            {
                **asdict(config),
                "model": Path(config.model).name,
                "corpus": Path(config.corpus).name,
                "seconds": seconds,
                "seconds_per_step": {name: round(value, 3) for name, value in per_step.items()},
                "times_faster": per_step["one"] / per_step["ranks"],
                "times_faster_at_most": config.ranks * per_step["one"] / per_step["apart"],
                "largest_difference": max(float((a - b).abs().max()) for a, b in pairs),
                "largest_change": max(float(a.abs().max()) for a, _ in pairs),
                "trained": one.n_values,
                "environment": environment(),
            }
        ]
    )


def prepare(config: Config, folder: Path) -> tuple[Path, Path]:
    """Neurons of the language, and a small corpus of its text; what an interrupted run left is made anew."""
    tags = (config.language, config.other)
    neurons, corpus = folder / "neurons", folder / "corpus"
    if not (neurons / "config.json").is_file():
        model, tokenizer = open_model(config.model, device="cpu")
        texts = load_corpus(config.corpus, tags, split="train")
        observed = observe(model, tokenizer, texts, sites=["mlp_gate"], tokens_per_language=5_000, shards=0)
        select_lape(observed, top_rate=config.top_rate).save(neurons)
    for split in ("train", "valid", "test"):
        documents = load_corpus(config.corpus, [config.language], split=split)[config.language]
        count = config.documents if split == "train" else config.documents // 10
        text = "".join(f"{document.text}\n" for document in documents[:count])
        (corpus / split).mkdir(parents=True, exist_ok=True)
        write_text(corpus / split / f"{config.language}.txt", text)
    return neurons, corpus


if __name__ == "__main__":
    run_experiment(Config, run)
