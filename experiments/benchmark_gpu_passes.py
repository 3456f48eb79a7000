"""What do observing and steering cost on a GPU, beside the bare passes on the same tokens?

Observing is compared with the body's own forward pass (no head), steered generation with plain `generate`; rounds are
interleaved in one process, wall time after a synchronisation. Random weights: the cost does not depend on them. Bars:
observe 1.05, steered generation 1.03; an interval above its bar counts against the claim.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from random_models import Shape, random_model

from babelscope import Direction, Site, layout_of, origin_of, steer
from babelscope.controls import percentile_interval
from babelscope.corpus import TokenDocument, batch_documents
from babelscope.recording.site_sums import PassSums
from babelscope.recording.tally import Tally
from babelscope.recording.walk import Walker, batch_room, hooked_passes
from babelscope.runs import Run, run_experiment
from babelscope.sites import At


@dataclass(frozen=True)
class Config:
    model: Shape = "llama-8b"
    device: str = "cuda"
    dtype: str = "bfloat16"
    documents: int = 16
    length: int = 2048
    languages: int = 4
    shards: int = 32
    sites: tuple[tuple[At, ...], ...] = (("mlp_gate",), ("mlp_gate", "resid_out"))
    rows: int = 8
    """Prompts of 64 tokens in a batch."""
    new_tokens: int = 64
    rounds: int = 7
    seed: int = 0


def random_documents(config: Config, vocabulary: int) -> list[TokenDocument]:
    generator = torch.Generator().manual_seed(config.seed)
    rows = torch.randint(3, vocabulary, (config.documents, config.length), generator=generator).tolist()
    return [
        TokenDocument(number % config.languages, str(number), tuple(row), (True,) * len(row), 0, 4 * len(row))
        for number, row in enumerate(rows)
    ]


def timed(call: Callable[[], Any], device: str) -> float:
    synchronise = torch.cuda.synchronize if device.startswith("cuda") else lambda: None
    synchronise()
    began = time.perf_counter()
    call()
    synchronise()
    return time.perf_counter() - began


def ratios_of(calls: dict[str, Callable[[], Any]], config: Config, facts: dict[str, Any], tokens: int) -> list[dict]:
    """A row for each call beside the first; one round warms up and is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(config.rounds + 1):
        for name, call in calls.items():
            taken = timed(call, config.device)
            if number:
                seconds[name].append(taken)
    base, rows, rng = next(iter(calls)), [], np.random.default_rng(config.seed)
    for name in list(calls)[1:]:
        ratios = np.array(seconds[name]) / np.array(seconds[base])
        low, high = percentile_interval([np.median(rng.choice(ratios, len(ratios))) for _ in range(1000)])
        row = {"what": name, "base": base, "ratio": float(np.median(ratios)), "low": low, "high": high}
        rows.append({**facts, **row, "base_tokens_per_second": round(tokens / statistics.median(seconds[base]))})
    return rows


@torch.no_grad()
def observing(model, config: Config) -> tuple[dict[str, Callable[[], Any]], int]:
    """The body's own passes, and the observing ones with each choice of sites."""
    layout = layout_of(model)
    documents = random_documents(config, model.config.vocab_size)
    batches = batch_documents(documents, batch_tokens=batch_room(layout), pad=0)

    @torch.no_grad()
    def body() -> None:
        for batch in batches:
            layout.body(
                input_ids=batch.input_ids.to(config.device),
                attention_mask=batch.attention_mask.to(config.device),
                use_cache=False,
            )

    def observe_at(kinds: tuple[At, ...]) -> Callable[[], None]:
        sites: dict[At, tuple[int | None, ...]] = {at: tuple(range(layout.n_layers)) for at in kinds}
        sums = PassSums(layout, sites, config.languages, config.shards)
        watchers = [sums, Tally.zeros(config.languages, config.shards)]

        @torch.no_grad()
        def observe() -> None:
            with hooked_passes(layout, watchers) as forward:
                walker = Walker(watchers, forward, batch_room(layout), None)
                for batch in batches:
                    walker.read(batch)

        return observe

    calls = {"body": body, **{f"observe {' and '.join(kinds)}": observe_at(kinds) for kinds in config.sites}}
    return calls, config.documents * config.length


def generating(model, config: Config) -> tuple[dict[str, Callable[[], Any]], int]:
    """Plain `generate`, and the same with one direction added, or projected out, at one layer and at all."""
    layout = layout_of(model)
    generator = torch.Generator().manual_seed(config.seed)
    ids = torch.randint(3, model.config.vocab_size, (config.rows, 64), generator=generator).to(config.device)
    options = {"max_new_tokens": config.new_tokens, "min_new_tokens": config.new_tokens, "do_sample": False}

    def write() -> None:
        model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), pad_token_id=0, **options)

    def direction(layer: int) -> Direction:
        values = torch.randn(layout.width("resid_out"), generator=generator)
        site, origin = Site(layer, "resid_out"), origin_of(model, None)
        return Direction(values, site, target="fi", source=("en",), mean_norm=float(values.norm()), origin=origin)

    every = [direction(layer) for layer in range(layout.n_layers)]
    middle = every[len(every) // 2]

    def under(operations: list[Any]) -> Callable[[], None]:
        def steered() -> None:
            with steer(model, operations):
                write()

        return steered

    calls = {
        "generate": write,
        "steer, add at one layer": under([middle.add(0.5)]),
        "steer, project out at one layer": under([middle.project_out(1.0)]),
        "steer, add at all layers": under([one.add(0.5) for one in every]),
    }
    return calls, config.rows * config.new_tokens


def run(config: Config, run: Run) -> None:
    model = random_model(config.model, device=config.device, dtype=getattr(torch, config.dtype), seed=config.seed)
    name = torch.cuda.get_device_name() if config.device.startswith("cuda") else config.device
    facts = {"model": config.model, "device": name, "dtype": config.dtype, "torch": torch.__version__}
    for kind in (observing, generating):
        calls, tokens = kind(model, config)
        run.log(ratios_of(calls, config, facts, tokens))


if __name__ == "__main__":
    run_experiment(Config, run)
