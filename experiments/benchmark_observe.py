"""What does observing cost beside the bare forward pass on the same batches?

The controls are the model's own forward pass, and the stricter one of its body alone: observing needs no head and
does not run it. All in the same process, rounds interleaved, process time beside wall time. Two models: the
reference model, and a random four-layer Llama of hidden 1024 and FFN 2816. A ratio whose interval lies above the
bar counts against the claim. More than one round stands for more than one seed.
"""

import time
from dataclasses import dataclass

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from babelscope import layout_of, load_corpus, open_model
from babelscope.controls import percentile_interval
from babelscope.corpus import as_corpus, batch_documents, pad_of
from babelscope.recording.pass_plan import PassPlan
from babelscope.recording.pass_settings import PassSettings
from babelscope.recording.site_sums import PassSums
from babelscope.recording.tally import Tally
from babelscope.recording.walk import CPU_TOKENS, Walker, hooked_passes
from babelscope.runs import Run, run_experiment
from babelscope.sites import At


@dataclass(frozen=True)
class Config:
    rounds: int = 15
    """Interleaved rounds of each variant."""
    sites: tuple[At, ...] = ("mlp_gate", "resid_out")
    """Kinds of site observed, at all layers."""
    tokens: int = 3000
    """Tokens a language, four languages."""
    hidden: int = 1024
    neurons: int = 2816
    layers: int = 4
    """Shape of the second model."""
    threads: int = 2
    seed: int = 0


def variants(model, tokenizer, config: Config):
    """The bare passes and the observing pass, over the same prepared batches."""
    corpus = as_corpus(load_corpus("reference", ["en", "ru", "zh", "hi"]))
    layout = layout_of(model)
    sites: dict[At, tuple[int | None, ...]] = {at: tuple(range(layout.n_layers)) for at in config.sites}
    settings = PassSettings(sites, config.tokens, 32, (0, 1), CPU_TOKENS, None, 512)
    windows, pad = PassPlan(layout, tokenizer, corpus, settings).documents(), pad_of(tokenizer)
    batches = [batch for window in windows for batch in batch_documents(window, batch_tokens=CPU_TOKENS, pad=pad)]
    watchers = [PassSums(layout, sites, len(corpus), 32), Tally.zeros(len(corpus), 32)]

    @torch.no_grad()
    def bare() -> None:
        for batch in batches:
            model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False)

    @torch.no_grad()
    def body() -> None:
        for batch in batches:
            layout.body(input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False)

    @torch.no_grad()
    def observe() -> None:
        with hooked_passes(layout, watchers) as forward:
            walker = Walker(watchers, forward, CPU_TOKENS, None)
            for batch in batches:
                walker.read(batch)

    return {"forward pass": bare, "forward pass without the head": body, "observe": observe}, sum(
        int(batch.counted.sum()) for batch in batches
    )


def measure(name: str, model, tokenizer, config: Config) -> list[dict]:
    calls, tokens = variants(model, tokenizer, config)
    times: dict[str, list[tuple[float, float]]] = {kind: [] for kind in calls}
    for call in calls.values():
        call()
    for _ in range(config.rounds):
        for kind, call in calls.items():
            wall, process = time.perf_counter(), time.process_time()
            call()
            times[kind].append((time.perf_counter() - wall, time.process_time() - process))
    rng, rows = np.random.default_rng(config.seed), []
    for base in ("forward pass", "forward pass without the head"):
        for index, clock in enumerate(("wall", "process")):
            pairs = zip(times["observe"], times[base], strict=True)
            ratios = np.array([mine[index] / theirs[index] for mine, theirs in pairs])
            low, high = percentile_interval([np.median(rng.choice(ratios, len(ratios))) for _ in range(1000)])
            rows.append(
                {
                    "model": name,
                    "base": base,
                    "clock": clock,
                    "ratio": round(float(np.median(ratios)), 4),
                    "low": round(low, 4),
                    "high": round(high, 4),
                    "rounds": config.rounds,
                    "tokens": tokens,
                    "sites": list(config.sites),
                }
            )
    return rows


def run(config: Config, run: Run) -> None:
    torch.set_num_threads(config.threads)
    model, tokenizer = open_model("reference", device="cpu")
    run.log(measure("reference", model, tokenizer, config))
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        large = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=len(tokenizer),
                hidden_size=config.hidden,
                intermediate_size=config.neurons,
                num_hidden_layers=config.layers,
                num_attention_heads=16,
                num_key_value_heads=16,
            )
        ).eval()
    name = f"random Llama, {config.layers} layers, hidden {config.hidden}, FFN {config.neurons}"
    run.log(measure(name, large, tokenizer, config))


if __name__ == "__main__":
    run_experiment(Config, run)
