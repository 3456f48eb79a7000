"""How much sooner do two processes of one launcher end, and do they count the same?

The same command in one process and under torchrun, one thread each, starting included. The control is the single
process. Against it: a count that differs, or no time saved.
"""

import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file

from babelscope.runs import Run, environment, run_experiment


@dataclass(frozen=True)
class Config:
    model: str = "reference"
    """Folder, Hugging Face id, or "reference"."""
    corpus: str = "reference"
    languages: tuple[str, ...] = ("en", "de", "fi", "ru")
    tokens: int = 20_000
    """Of each language."""
    dtype: str = "bfloat16"
    ranks: int = 2


def run(config: Config, run: Run) -> None:
    words = ["-m", "babelscope", "observe", config.model, config.corpus, "--languages", *config.languages]
    words += ["--tokens-per-language", str(config.tokens), "--dtype", config.dtype, "--device", "cpu"]
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", str(config.ranks)]
    seconds = {}
    for name, start in (("one", []), ("ranks", launcher)):
        began = time.monotonic()
        command = [sys.executable, *start, *words, "--out", str(run.folder / name)]
        subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True)
        seconds[name] = round(time.monotonic() - began, 1)
    one, ranks = (load_file(run.folder / name / "tensors.safetensors") for name in ("one", "ranks"))
    counts = [name for name, value in one.items() if not value.dtype.is_floating_point]
    sums = {name: (one[name] - ranks[name]).abs().max() / one[name].abs().max() for name in one if name not in counts}
    run.log(
        [
            {
                **asdict(config),
                "model": Path(config.model).name,
                "corpus": Path(config.corpus).name,
                "seconds": seconds,
                "times_faster": seconds["one"] / seconds["ranks"],
                "counts_equal": all(torch.equal(one[name], ranks[name]) for name in counts),
                "largest_relative_difference_of_sums": max(map(float, sums.values())),
                "environment": environment(),
            }
        ]
    )


if __name__ == "__main__":
    run_experiment(Config, run)
