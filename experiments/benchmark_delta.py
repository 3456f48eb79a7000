"""How long does it take to put a trained subnetwork into the reference model and take it out again?

Against the claim would be a median of apply + revert above 10 ms. Beside it: the same while another delta of as many
neurons is in the model, and a plain copy of all MLP weights in and back, which needs two whole copies in memory, keeps
no account of what is applied and cannot combine deltas. On a model as small as this one the plain copy is faster; it
grows with the model, apply and revert with the delta. Rounds are interleaved in one process. Random neurons and
changes: time does not depend on the values.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from babelscope import Delta, layout_of, open_model, origin_of
from babelscope.controls import percentile_interval
from babelscope.languages import Language
from babelscope.models import Layout
from babelscope.runs import Run, run_experiment


@dataclass(frozen=True)
class Config:
    rounds: int = 201
    """Interleaved rounds of each variant."""
    threads: int = 1
    seed: int = 0


def run(config: Config, run: Run) -> None:
    torch.set_num_threads(config.threads)
    for dtype in ("float32", "bfloat16"):
        model, _ = open_model("reference", device="cpu", dtype=dtype)
        for percent in (1, 5, 10):
            found = {"dtype": dtype, "percent_of_neurons": percent}
            run.log({**found, **row} for row in measured(layout_of(model), percent / 100, config))


def measured(layout: Layout, share: float, config: Config) -> Iterator[dict[str, float | int | str]]:
    """One row a variant; rounds of all variants interleaved."""
    model, stock = layout.model, whole_copy(layout)
    delta, other = (random_delta(layout, share, config.seed + number) for number in range(2))

    def switch() -> int:
        return delta.apply(model) + delta.revert(model)

    began = time.process_time()
    written = switch()
    first_ms = 1000 * (time.process_time() - began)
    times: dict[str, list[float]] = {"alone": [], "beside another delta": [], "stock copy of all MLPs": []}
    for _ in range(config.rounds):
        times["alone"].append(timed(switch))
        with other.applied(model):
            times["beside another delta"].append(timed(switch))
        times["stock copy of all MLPs"].append(timed(stock))
    sizes = {"values": delta.n_values, "bytes_written": written, "first_ms": round(first_ms, 3)}
    for variant, ms in times.items():
        whole = 2 * sum(rows.nbytes for layer in range(layout.n_layers) for rows in layout.neuron_rows(layer).values())
        row = {"bytes_written": whole} if variant.startswith("stock") else sizes
        yield {"variant": variant, **summary(ms, config), **row}


def random_delta(layout: Layout, share: float, seed: int) -> Delta:
    """As many random neurons in every layer."""
    generator, width = torch.Generator().manual_seed(seed), layout.width("mlp_gate")
    count = round(share * width)
    chosen = [torch.randperm(width, generator=generator)[:count].sort().values for _ in range(layout.n_layers)]
    rows: dict[str, Any] = {
        role: torch.randn(count * layout.n_layers, layout.d_hidden, generator=generator) / 100
        for role in ("gate", "up", "down")
    }
    return Delta(
        origin=origin_of(layout.model, None),
        languages=(Language("eu"),),
        n_neurons=width,
        offsets=torch.arange(layout.n_layers + 1) * count,
        indices=torch.cat(chosen).to(torch.int32),
        **rows,
    )


def whole_copy(layout: Layout) -> Callable[[], None]:
    """Copies the adapted MLPs in and the base ones back."""
    live = [rows.detach() for layer in range(layout.n_layers) for rows in layout.neuron_rows(layer).values()]
    base = [rows.clone() for rows in live]
    adapted = [rows.clone() for rows in live]

    def copy() -> None:
        for saved in (adapted, base):
            for rows, values in zip(live, saved, strict=True):
                rows.copy_(values)

    return copy


def timed(call: Callable[[], object]) -> float:
    """Milliseconds of processor time, which other programs on the machine disturb less than the clock."""
    began = time.process_time()
    call()
    return 1000 * (time.process_time() - began)


def summary(times: list[float], config: Config) -> dict[str, float | int]:
    """Median and its 95 % bootstrap interval."""
    rng = np.random.default_rng(config.seed)
    low, high = percentile_interval([np.median(rng.choice(times, len(times))) for _ in range(1000)])
    median = {"ms": round(float(np.median(times)), 3), "low": round(low, 3), "high": round(high, 3)}
    return {**median, "fastest_ms": round(min(times), 3), "rounds": config.rounds, "threads": config.threads}


if __name__ == "__main__":
    run_experiment(Config, run)
