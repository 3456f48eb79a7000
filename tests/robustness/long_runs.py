"""Memory over many steering contexts and over ten times the text, and what several threads get.

    python tests/robustness/long_runs.py --out docs/measured/long_runs.jsonl

A row for each question; the short form of the same is a test.
"""

import json
import multiprocessing
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import tyro

sys.path.insert(0, str(Path(__file__).parents[1]))

from conftest import tiny_model, tiny_tokenizer

import babelscope as bs
from babelscope.artifacts import Operation
from babelscope.errors import ToolkitError
from babelscope.files.writing import write_text
from babelscope.models import layout_of
from babelscope.runs import environment
from babelscope.sites import Site

PUSH = 5.0
IDS = torch.arange(12)[None] + 5


@dataclass(frozen=True)
class Config:
    """How long."""

    contexts: int = 1_000
    """Steering contexts on one model."""
    tokens: int = 20_000
    """Tokens a language, and ten times as many."""
    rounds: int = 40
    """Answers that each thread asks for."""
    out: str = ""
    """File of rows; empty prints them."""


def push(model: Any) -> Operation:
    """A change that every answer shows."""
    width = layout_of(model).d_hidden
    vector = torch.randn(width, generator=torch.Generator().manual_seed(1))
    return Operation(Site(1, "resid_out"), "add", PUSH * vector)


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits


def resident_kib() -> int:
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])


def many_contexts(contexts: int) -> dict[str, Any]:
    """Hooks and memory after so many steering contexts; the first tenth warms up."""
    model = tiny_model("llama").eval()
    operation, plain = push(model), logits(model)
    before = attributes = 0
    for number in range(contexts):
        if number == contexts // 10:
            before, attributes = resident_kib(), sum(len(vars(module)) for module in model.modules())
        with bs.steer(model, operation):
            logits(model)
    return {
        "check": "contexts",
        "n": contexts,
        "more_kib": resident_kib() - before,
        "more_attributes": sum(len(vars(module)) for module in model.modules()) - attributes,
        "hooks": sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()),
        "plain_after": torch.equal(logits(model), plain),
    }


def _peak_of_observing(tokens: int) -> int:
    """Peak memory of a process that observes so many tokens per language, above what it had before."""
    torch.set_num_threads(1)
    lines = (f"the cat {n % 97} sat on mat {n % 89} and the dog {n % 83} slept there" for n in range(tokens // 8))
    texts = {"en": list(lines), "fi": [f"kissa {n} istui matolla" for n in range(tokens // 4)]}
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    Path("/proc/self/clear_refs").write_text("5")
    before = resident_kib()
    bs.observe(model, tokenizer, texts, sites=["mlp_gate", "resid_out"], tokens_per_language=tokens)
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) - before


def ten_times_the_text(tokens: int) -> dict[str, Any]:
    """Memory of a pass over some text and over ten times as much, each in a process of its own."""
    with multiprocessing.get_context("fork").Pool(1, maxtasksperchild=1) as pool:
        peaks = pool.map(_peak_of_observing, (tokens, 10 * tokens), chunksize=1)
    return {"check": "ten times the text", "tokens": tokens, "kib": peaks[0], "ten_times_kib": peaks[1]}


def _together(works: list[Callable[[], torch.Tensor]], rounds: int) -> list[list[torch.Tensor | str]]:
    """What each of several threads gets, again and again at once: a tensor, or the error."""
    results: list[list[torch.Tensor | str]] = [[] for _ in works]
    start = threading.Barrier(len(works))

    def run(number: int) -> None:
        start.wait()
        for _ in range(rounds):
            try:
                results[number].append(works[number]())
            except ToolkitError as err:
                results[number].append(f"{type(err).__name__}: {err}")

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def threads(rounds: int, *, models: int) -> dict[str, Any]:
    """Threads that steer, record or answer plainly, two at once, on one model or on a model each."""
    first = tiny_model("llama").eval()
    second = first if models == 1 else tiny_model("llama").eval()
    steered = _steered(first)
    expected = {"steered": steered, "plain": logits(first), "recorded": _recorded(first)}
    works = {
        "steered": [lambda: _steered(first), lambda: _steered(second)],
        "plain": [lambda: logits(second)],
        "recorded": [lambda: _recorded(first), lambda: _recorded(second)],
    }
    pairs = [("steered", 0, "steered", 1), ("steered", 0, "recorded", 1), ("recorded", 0, "recorded", 1)]
    # Steering acts on the passes of all threads, as a server needs it: a plain pass beside it is no mistake of it.
    pairs += [("steered", 0, "plain", 0)] if models == 2 else []
    row = {"check": "threads", "models": models, "right": 0, "refused": 0, "wrong": 0, "not_one_line": 0}
    for name_a, place_a, name_b, place_b in pairs:
        results = _together([works[name_a][place_a], works[name_b][place_b]], rounds)
        for name, found in zip((name_a, name_b), results, strict=True):
            for value in found:
                if isinstance(value, str):
                    row["refused"] += 1
                    row["not_one_line"] += "\n" in value
                else:
                    row["right" if torch.equal(value, expected[name]) else "wrong"] += 1
    return row


def _steered(model: Any) -> torch.Tensor:
    with bs.steer(model, push(model)):
        return logits(model)


def _recorded(model: Any) -> torch.Tensor:
    texts = {"en": ["the cat sat", "on a mat"], "fi": ["kissa istui", "matolla"]}
    return bs.observe(model, tiny_tokenizer(), texts, sites=["resid_out"])["resid_out"].sum


def main(config: Config) -> None:
    """All rows."""
    torch.set_num_threads(1)
    rows = [{"config": {**asdict(config), "out": ""}, "environment": environment()}]
    rows += [ten_times_the_text(config.tokens), many_contexts(config.contexts)]
    rows += [threads(config.rounds, models=number) for number in (1, 2)]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    write_text(config.out, text) if config.out else sys.stdout.write(text)


if __name__ == "__main__":
    main(tyro.cli(Config))
