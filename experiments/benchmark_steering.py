"""What does steering cost while the reference model generates?

The control is plain `generate` with the same prompts and as many tokens, in the same process, rounds interleaved.
Steered: one direction at one layer for all rows, one direction a row, and features of an autoencoder clamped for all
rows; its weights are random, for the cost does not depend on them. A ratio whose interval lies above 1.05 (directions)
or 1.15 (features) counts against the claim. Greedy, so that both write the same number of tokens.
"""

import time
from dataclasses import dataclass

import numpy as np
import torch

from babelscope import Site, clamp_features, load_corpus, mean_direction, observe, open_model, steer
from babelscope.artifacts import LoadedSAE
from babelscope.controls import percentile_interval
from babelscope.runs import Run, run_experiment
from babelscope.steering.sweeps import make_prompts
from babelscope.steering.sweeps.steering_prompts import left_pad


@dataclass(frozen=True)
class Config:
    rounds: int = 15
    """Interleaved rounds of each variant."""
    new_tokens: int = 32
    rows: int = 32
    """Prompts in the batch."""
    layer: int = 3
    features: int = 5
    """Clamped."""
    threads: int = 2
    seed: int = 0


def random_autoencoder(hidden: int, config: Config) -> LoadedSAE:
    """JumpReLU, eight times as wide as the stream."""
    generator = torch.Generator().manual_seed(config.seed)
    weights = torch.randn(hidden, 8 * hidden, generator=generator) / hidden**0.5
    return LoadedSAE(
        id="random",
        site=Site(config.layer, "resid_out"),
        w_enc=weights,
        b_enc=torch.zeros(8 * hidden),
        w_dec=weights.T.contiguous(),
        b_dec=torch.zeros(hidden),
        activation="jumprelu",
        threshold=torch.ones(8 * hidden),
    )


def run(config: Config, run: Run) -> None:
    torch.set_num_threads(config.threads)
    model, tokenizer = open_model("reference", device="cpu")
    texts = load_corpus("reference", ["en", "fi", "ru", "zh"])
    observation = observe(
        model, tokenizer, texts, sites=[f"{config.layer}.resid_out"], tokens_per_language=2000, shards=0
    )
    direction = mean_direction(observation, target="fi", layer=config.layer)
    others = [mean_direction(observation, target=tag, layer=config.layer) for tag in texts]
    prompts = [prompt.text for prompt in make_prompts(texts, per_language=config.rows // len(texts))]
    ids, mask = left_pad(tokenizer, prompts)

    def write() -> None:
        model.generate(  # pyright: ignore[reportCallIssue]
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=config.new_tokens,
            min_new_tokens=config.new_tokens,
            do_sample=False,
        )

    def one() -> None:
        with steer(model, direction.add(0.5)):
            write()

    def by_row() -> None:
        with steer(model, rows=[others[row % len(others)].add(0.5) for row in range(len(prompts))]):
            write()

    sae = random_autoencoder(model.config.hidden_size, config)
    clamped = clamp_features(sae, {index: 1.0 for index in range(config.features)})

    def by_feature() -> None:
        with steer(model, clamped):
            write()

    calls = {"plain": write, "one direction": one, "a direction a row": by_row, "clamped features": by_feature}
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(config.rounds):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - began)
    rng = np.random.default_rng(config.seed)
    for name in list(calls)[1:]:
        ratios = np.array(times[name]) / np.array(times["plain"])
        low, high = percentile_interval([np.median(rng.choice(ratios, len(ratios))) for _ in range(1000)])
        run.log(
            [
                {
                    "variant": name,
                    "ratio": round(float(np.median(ratios)), 4),
                    "low": round(low, 4),
                    "high": round(high, 4),
                    "rounds": config.rounds,
                    "rows": len(prompts),
                    "new_tokens": config.new_tokens,
                    "plain_tokens_per_second": round(
                        len(prompts) * config.new_tokens / float(np.median(times["plain"]))
                    ),
                }
            ]
        )


if __name__ == "__main__":
    run_experiment(Config, run)
