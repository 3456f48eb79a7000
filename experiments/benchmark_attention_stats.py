"""What do attention statistics without patterns save beside eager patterns?

The control is the usual way: Hugging Face's own eager attention, whose pattern [batch, head, token, token] then gives
the entropy −Σ p ln p, the first key's share and the previous token's. A second control is two calls of the fused
attention, v and k in turn, with entropy as lse − scale · q · (p @ k). Same inputs, same process, variants interleaved,
process time beside wall time. An interval that reaches below 4 (eager), memory above a tenth of eager's, or an entropy
further than 1e-4 nats from float64 would count against the claim. Inputs are random normal.
"""

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from babelscope_kernels.attention_stats import attention_stats
from transformers.models.llama.modeling_llama import eager_attention_forward

from babelscope.controls import percentile_interval
from babelscope.runs import Run, run_experiment


@dataclass(frozen=True)
class Config:
    rounds: int = 11
    """Interleaved rounds of each variant."""
    tokens: int = 1024
    shapes: tuple[str, ...] = ("8,8,64", "8,4,32", "16,8,128")
    """Heads, key heads and head dimension of each model."""
    threads: int = 1
    seed: int = 0


class Grouped(torch.nn.Module):
    """What eager_attention_forward reads of its layer."""

    def __init__(self, group: int):
        super().__init__()
        self.num_key_value_groups = group


def variants(heads: int, kv_heads: int, dim: int, config: Config):
    """Three ways to the output and statistics of one layer, and float64's entropy."""
    generator = torch.Generator().manual_seed(config.seed)
    q, k, v = (
        torch.randn(1, config.tokens, count, dim, generator=generator).transpose(1, 2)
        for count in (heads, kv_heads, kv_heads)
    )
    layer = Grouped(heads // kv_heads).eval()
    future = torch.full((config.tokens, config.tokens), float("-inf")).triu(1)[None, None]
    scale = dim**-0.5

    def eager(kind: torch.dtype = torch.float32):
        queries, keys, values = (tensor.to(kind) for tensor in (q, k, v))
        output, pattern = eager_attention_forward(layer, queries, keys, values, future.to(kind), scale)
        entropy = torch.special.entr(pattern).sum(-1)
        return output, entropy, pattern[..., 0], pattern.diagonal(-1, -2, -1)

    def fused():
        flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        output, lse = flash(q, k, v, 0.0, True)
        keys, _ = flash(q, k, k, 0.0, True)
        return output, lse - scale * (q * keys).sum(-1)

    def ours():
        return attention_stats(q, k, v)

    return {"eager patterns": eager, "two fused calls": fused, "attention_stats": ours}, eager(torch.float64)[1]


def peak_bytes(call) -> int:
    """Most memory that tensors made by one call hold at once."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        kept = call()
    recorded: Any = profile.profiler
    events = [event for event in recorded.kineto_results.events() if event.name() == "[memory]"]
    del kept
    return int(np.cumsum([event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]).max())


def measure(shape: str, config: Config) -> list[dict]:
    heads, kv_heads, dim = (int(part) for part in shape.split(","))
    calls, exact = variants(heads, kv_heads, dim, config)
    gap = float((calls["attention_stats"]().entropy_nats - exact).abs().max())
    memory = {kind: peak_bytes(call) for kind, call in calls.items()}
    times: dict[str, list[tuple[float, float]]] = {kind: [] for kind in calls}
    for _ in range(config.rounds):
        for kind, call in calls.items():
            wall, process = time.perf_counter(), time.process_time()
            call()
            times[kind].append((time.perf_counter() - wall, time.process_time() - process))
    rng, rows = np.random.default_rng(config.seed), []
    for base in ("eager patterns", "two fused calls"):
        for index, clock in enumerate(("wall", "process")):
            pairs = zip(times[base], times["attention_stats"], strict=True)
            ratios = np.array([theirs[index] / mine[index] for theirs, mine in pairs])
            low, high = percentile_interval([np.median(rng.choice(ratios, len(ratios))) for _ in range(1000)])
            rows.append(
                {
                    "heads, key heads, dimension": shape,
                    "tokens": config.tokens,
                    "base": base,
                    "clock": clock,
                    "times_faster": round(float(np.median(ratios)), 4),
                    "low": round(low, 4),
                    "high": round(high, 4),
                    "ms": round(1000 * float(np.median([pair[index] for pair in times["attention_stats"]])), 2),
                    "base_ms": round(1000 * float(np.median([pair[index] for pair in times[base]])), 2),
                    "rounds": config.rounds,
                    "memory_share": round(memory["attention_stats"] / memory[base], 4),
                    "memory_mib": round(memory["attention_stats"] / 2**20, 2),
                    "entropy_gap_nats": gap,
                    "threads": config.threads,
                }
            )
    return rows


def run(config: Config, run: Run) -> None:
    torch.set_num_threads(config.threads)
    with torch.no_grad():
        for shape in config.shapes:
            run.log(measure(shape, config))


if __name__ == "__main__":
    run_experiment(Config, run)
