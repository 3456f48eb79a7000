"""What does one random number per row save, beside `torch.multinomial`, which draws one per entry?

Both take the same scores to tokens, at temperature 0.8, in one process, interleaved, by process time. The control is
`torch.multinomial` on the softmax. Draws that a chi-square over the likeliest 15 entries and the rest tells from the
probabilities at p < .001, in either form, or a ratio whose interval reaches 1 at the number of entries from which the
library draws so, would count against it.
"""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import chisquare

from babelscope.controls import percentile_interval
from babelscope.files.writing import write_text
from babelscope.runs import Run, environment, run_experiment
from babelscope.steering.sweeps import drawn_tokens

TEMPERATURE = 0.8
LIKELIEST = 15


@dataclass(frozen=True)
class Config:
    entries: tuple[int, ...] = (32_768, 65_536, 151_936, 262_144)
    rows: int = 128
    spread: float = 2.5
    """Standard deviation of the scores."""
    rounds: int = 7
    threads: int = 2
    seed: int = 0
    out: str = ""
    """A file for the rows; empty: the run's own results only."""


def measured(config: Config, entries: int) -> dict[str, Any]:
    """Ratio of times, and how well the draws of each form fit the probabilities."""
    row = config.spread * torch.randn(entries, generator=torch.Generator().manual_seed(config.seed))
    probabilities = torch.softmax(row.double() / TEMPERATURE, dim=0)
    first = probabilities.topk(LIKELIEST).indices
    draw, none = drawn_tokens.TokenDraw(TEMPERATURE), torch.zeros(config.rows, 1, dtype=torch.int64)

    def ours() -> torch.Tensor:
        return draw(none, row.repeat(config.rows, 1)).argmax(dim=1)

    def multinomial() -> torch.Tensor:
        return torch.multinomial(torch.softmax(row.repeat(config.rows, 1) / TEMPERATURE, dim=1), 1)[:, 0]

    seconds, drawn = {ours: [], multinomial: []}, {ours: [], multinomial: []}
    torch.manual_seed(config.seed)
    for _ in range(config.rounds):
        for call, times in seconds.items():
            began = time.process_time()
            drawn[call].append(call())
            times.append(time.process_time() - began)
    ratios = np.array(seconds[multinomial]) / np.array(seconds[ours])
    rng = np.random.default_rng(config.seed)
    low, high = percentile_interval([np.median(rng.choice(ratios, len(ratios))) for _ in range(1000)])
    share = probabilities[first].tolist()
    expected = np.array([*share, 1 - sum(share)]) * config.rows * config.rounds

    def fit(tokens: list[torch.Tensor]) -> float:
        counts = (torch.cat(tokens)[:, None] == first).sum(dim=0).tolist()
        observed = np.array([*counts, config.rows * config.rounds - sum(counts)])
        return float(chisquare(observed, expected).pvalue)

    return {
        "entries": entries,
        "times_faster": round(float(np.median(ratios)), 4),
        "low": round(low, 4),
        "high": round(high, 4),
        "us_per_row": round(1e6 * float(np.median(seconds[ours])) / config.rows, 1),
        "p_of_fit": round(fit(drawn[ours]), 4),
        "p_of_fit_multinomial": round(fit(drawn[multinomial]), 4),
        "drawn_so": entries >= drawn_tokens.LARGE,
    }


def run(config: Config, run: Run) -> None:
    torch.set_num_threads(config.threads)
    rows = [measured(config, entries) for entries in config.entries]
    run.log(rows)
    if config.out:
        facts = {"rows": config.rows, "spread": config.spread, "threads": config.threads, "rounds": config.rounds}
        lines = [{"config": facts, "environment": environment()}, *rows]
        write_text(Path(config.out), "".join(json.dumps(line) + "\n" for line in lines))


if __name__ == "__main__":
    run_experiment(Config, run)
