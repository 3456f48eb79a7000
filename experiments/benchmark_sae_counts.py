"""What does counting SAE firings per language save beside encoding everything and then summing?

The control is the usual way: z = hidden @ w_enc + b_enc, ReLU, booleans as floats, a sum over each language's tokens,
with tokens × features in memory. Same inputs, same process, variants interleaved, process time beside wall time. Counts
that differ anywhere, a ratio whose interval reaches below 1.5, or a tensor above 1/16 of tokens × features would count
against the claim. `products alone` is the matrix product into new memory, without any counting.
Inputs are random normal, so one seed stands for many: 16.8 million comparisons a round.
"""

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from babelscope_kernels.sae_counts import sae_counts

from babelscope.controls import percentile_interval
from babelscope.runs import Run, run_experiment


@dataclass(frozen=True)
class Config:
    rounds: int = 11
    """Interleaved rounds of each variant."""
    tokens: int = 1024
    hidden: int = 512
    features: int = 16384
    languages: int = 8
    threads: int = 1
    seed: int = 0


def variants(config: Config):
    """Three ways over the same inputs."""
    generator = torch.Generator().manual_seed(config.seed)
    hidden = torch.randn(config.tokens, config.hidden, generator=generator)
    w_enc = torch.randn(config.hidden, config.features, generator=generator) / config.hidden**0.5
    b_enc = torch.randn(config.features, generator=generator) / 10 - 1
    languages = torch.randint(config.languages, (config.tokens,), generator=generator)

    def encode_then_sum() -> torch.Tensor:
        fired = (hidden @ w_enc + b_enc).relu().bool().float()
        return torch.stack([fired[languages == language].sum(0) for language in range(config.languages)])

    def counted() -> torch.Tensor:
        return sae_counts(hidden, w_enc, b_enc, languages=languages, n_languages=config.languages).counts

    return {
        "encode then sum": encode_then_sum,
        "sae_counts": counted,
        "products alone": lambda: hidden @ w_enc,
    }


def largest_allocation(call) -> int:
    """Bytes of the largest tensor that one call makes."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        call()
    recorded: Any = profile.profiler
    events = [event for event in recorded.kineto_results.events() if event.name() == "[memory]"]
    return max(event.nbytes() for event in events)


def run(config: Config, run: Run) -> None:
    torch.set_num_threads(config.threads)
    calls = variants(config)
    exact = torch.equal(calls["encode then sum"]().long(), calls["sae_counts"]())
    times: dict[str, list[tuple[float, float]]] = {kind: [] for kind in calls}
    for _ in range(config.rounds):
        for kind, call in calls.items():
            wall, process = time.perf_counter(), time.process_time()
            call()
            times[kind].append((time.perf_counter() - wall, time.process_time() - process))
    rng, rows = np.random.default_rng(config.seed), []
    whole = 4 * config.tokens * config.features
    for base in ("encode then sum", "products alone"):
        for index, clock in enumerate(("wall", "process")):
            pairs = zip(times[base], times["sae_counts"], strict=True)
            ratios = np.array([theirs[index] / mine[index] for theirs, mine in pairs])
            low, high = percentile_interval([np.median(rng.choice(ratios, len(ratios))) for _ in range(1000)])
            rows.append(
                {
                    "base": base,
                    "clock": clock,
                    "times_faster": round(float(np.median(ratios)), 4),
                    "low": round(low, 4),
                    "high": round(high, 4),
                    "ms": round(1000 * float(np.median([pair[index] for pair in times["sae_counts"]])), 2),
                    "base_ms": round(1000 * float(np.median([pair[index] for pair in times[base]])), 2),
                    "rounds": config.rounds,
                    "shape": f"{config.tokens} × {config.hidden} → {config.features}, {config.languages} languages",
                    "counts_equal": exact,
                    "largest_tensor_share": round(largest_allocation(calls["sae_counts"]) / whole, 5),
                    "threads": config.threads,
                }
            )
    run.log(rows)


if __name__ == "__main__":
    run_experiment(Config, run)
