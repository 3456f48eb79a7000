"""What does reading a large head in parts save where a loss is scored, and from how many entries on?

The control is the whole head: logits of 512 rows, then torch's cross entropy over them. Same states and weights, same
process, variants interleaved, process time. Losses that differ by more than 1e-4 nats in float32, or a ratio whose
interval reaches 1 at the number of entries from which the library reads in parts, would count against it. Values are
random normal: neither product nor sum takes longer for other ones.
"""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from babelscope.controls import percentile_interval
from babelscope.evaluation import next_token
from babelscope.files.writing import write_text
from babelscope.models import layout_of
from babelscope.runs import Run, environment, run_experiment


@dataclass(frozen=True)
class Config:
    entries: tuple[int, ...] = (32_768, 65_536, 151_936, 262_144)
    hidden: int = 640
    rows: int = 512
    dtypes: tuple[str, ...] = ("float32", "bfloat16")
    rounds: int = 7
    threads: int = 2
    seed: int = 0
    out: str = ""
    """A file for the rows; empty: the run's own results only."""


@torch.inference_mode()
def measured(config: Config, entries: int, dtype: str) -> dict[str, Any]:
    settings = {"num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8, "tie_word_embeddings": True}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=entries, hidden_size=config.hidden, **settings))
    layout = layout_of(model.to(getattr(torch, dtype)).eval())
    generator = torch.Generator().manual_seed(config.seed)
    states = torch.randn(config.rows, config.hidden, generator=generator).to(model.dtype)
    targets = torch.randint(entries, (config.rows,), generator=generator)

    def whole() -> torch.Tensor:
        logits = next_token.at_least_float32(layout.logits(states))
        return torch.nn.functional.cross_entropy(logits, targets, reduction="none")

    def parts() -> torch.Tensor:
        return next_token.nll_in_parts(layout, states, targets)

    difference = float((whole() - parts()).abs().max())
    ratios, seconds = [], {whole: [], parts: []}
    for _ in range(config.rounds):
        for call, times in seconds.items():
            began = time.process_time()
            call()
            times.append(time.process_time() - began)
        ratios.append(seconds[whole][-1] / seconds[parts][-1])
    rng = np.random.default_rng(config.seed)
    low, high = percentile_interval([np.median(rng.choice(ratios, len(ratios))) for _ in range(1000)])
    return {
        "entries": entries,
        "dtype": dtype,
        "times_faster": round(float(np.median(ratios)), 4),
        "low": round(low, 4),
        "high": round(high, 4),
        "us_per_row": round(1e6 * float(np.median(seconds[parts])) / config.rows, 1),
        "largest_difference_nats": difference,
        "read_in_parts": entries >= next_token.LARGE,
    }


def run(config: Config, run: Run) -> None:
    torch.set_num_threads(config.threads)
    rows = [measured(config, entries, dtype) for entries in config.entries for dtype in config.dtypes]
    run.log(rows)
    if config.out:
        facts = {"hidden": config.hidden, "rows": config.rows, "threads": config.threads, "rounds": config.rounds}
        lines = [{"config": facts, "environment": environment()}, *rows]
        write_text(Path(config.out), "".join(json.dumps(line) + "\n" for line in lines))


if __name__ == "__main__":
    run_experiment(Config, run)
