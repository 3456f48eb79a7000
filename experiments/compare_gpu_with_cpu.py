"""Does a GPU say what the CPU says: counts, sums, steered tokens, a trained subnetwork?

The bundled model in float32 and one of random weights in Gemma 3 270M's shape, each on both devices, on the same text.
Products in TF32 are off. The control is the CPU beside itself with another batch size, which differs by rounding only:
what a GPU differs by more than that is a fault. Strength 0 must leave every bit of the logits.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from random_models import random_model

import babelscope as bs
from babelscope.corpus import Corpus
from babelscope.runs import Run, run_experiment
from babelscope.steering.sweeps import make_prompts
from babelscope.steering.sweeps.steering_prompts import left_pad
from babelscope.subnetworks.forms import Form


@dataclass(frozen=True)
class Config:
    models: tuple[Literal["reference", "gemma-270m"], ...] = ("reference", "gemma-270m")
    """"gemma-270m": random weights in that shape, with the bundled model's tokenizer."""
    device: str = "cuda"
    languages: tuple[str, ...] = ("en", "fi", "ru", "zh")
    tokens: int = 2000
    """Of each language, observed."""
    layer: int = 3
    prompts: int = 4
    """Of each language."""
    new_tokens: int = 24
    steps: int = 8
    """Of training."""
    seed: int = 0


def open_on(device: str, name: str, config: Config) -> tuple[Any, Any]:
    model: Any
    model, tokenizer = bs.open_model("reference", device="cpu")
    if name != "reference":
        model = random_model("gemma-270m", seed=config.seed)
    return model.float().to(device), tokenizer


def observed(model, tokenizer, texts, config: Config, batch_size: int | str = "auto") -> bs.Observation:
    sites = ["mlp_gate", f"{config.layer}.resid_out"]
    return bs.observe(
        model, tokenizer, texts, sites=sites, tokens_per_language=config.tokens, shards=8, batch_size=batch_size
    )


def compare_observations(ours: bs.Observation, theirs: bs.Observation) -> dict[str, float]:
    """Share of counts that differ, by how much at most, and the relative RMS difference of the sums."""
    row = {}
    for at in ("mlp_gate", "resid_out"):
        one, two = ours[at], theirs[at]
        row[f"{at} counts unequal"] = float((one.active != two.active).double().mean())
        row[f"{at} counts apart"] = int((one.active - two.active).abs().max())
        gap, size = (one.sum - two.sum).double(), two.sum.double()
        row[f"{at} sums apart"] = float(gap.square().mean().sqrt() / size.square().mean().sqrt())
    return row


def answers(model, tokenizer, recipe, texts, config: Config) -> torch.Tensor:
    """Greedy tokens [prompt, new_tokens], plain if there is no recipe."""
    prompts = [prompt.text for prompt in make_prompts(texts, per_language=config.prompts)]
    ids, mask = left_pad(tokenizer, prompts)
    options = {"max_new_tokens": config.new_tokens, "min_new_tokens": config.new_tokens, "do_sample": False}
    with bs.steer(model, recipe):
        written = model.generate(
            input_ids=ids.to(model.device), attention_mask=mask.to(model.device), pad_token_id=0, **options
        )
    return written[:, ids.shape[1] :].cpu()


@torch.no_grad()
def logits(model, tokenizer, recipe, texts) -> torch.Tensor:
    ids, mask = left_pad(tokenizer, [documents[0].text[:200] for documents in texts.values()])
    with bs.steer(model, recipe):
        return model(input_ids=ids.to(model.device), attention_mask=mask.to(model.device)).logits.cpu()


def run(config: Config, run: Run) -> None:
    torch.backends.cuda.matmul.allow_tf32 = False
    texts = bs.load_corpus("reference", list(config.languages))
    for name in config.models:
        compare(name, texts, config, run)


def compare(name: str, texts: Corpus, config: Config, run: Run) -> None:
    """One model on the CPU and on the other device."""
    cpu, tokenizer = open_on("cpu", name, config)
    other, _ = open_on(config.device, name, config)
    facts = {"model": name, "device": device_name(config.device), "torch": torch.__version__}
    ours, again, theirs = (
        observed(cpu, tokenizer, texts, config),
        observed(cpu, tokenizer, texts, config, batch_size=3),
        observed(other, tokenizer, texts, config),
    )
    run.log([{**facts, "what": "observe, CPU in other batches", **compare_observations(again, ours)}])
    run.log([{**facts, "what": "observe", **compare_observations(theirs, ours)}])
    direction = bs.mean_direction(ours, target=config.languages[1], layer=config.layer)
    for name, recipe in (("plain", ()), ("add", direction.add(1.0)), ("project out", direction.project_out(1.0))):
        one, two = (answers(model, tokenizer, recipe, texts, config) for model in (cpu, other))
        apart = (logits(other, tokenizer, recipe, texts) - logits(cpu, tokenizer, recipe, texts)).abs().max()
        run.log(
            [
                {
                    **facts,
                    "what": f"generate, {name}",
                    "tokens": one.numel(),
                    "tokens equal": float((one == two).double().mean()),
                    "answers equal": float((one == two).all(dim=1).double().mean()),
                    "logits apart": float(apart),
                }
            ]
        )
    plain, zero = (logits(other, tokenizer, recipe, texts) for recipe in ((), direction.add(0.0)))
    run.log([{**facts, "what": "strength 0", "bits equal": bool(torch.equal(plain, zero))}])
    neurons = bs.select_top_rate(ours, top_rate=0.02)[config.languages[1]]
    forms: list[tuple[Any, Form]] = [(cpu, "split"), (cpu, "fused"), (other, "fused")]
    deltas = [
        bs.train_subnetwork(
            model,
            tokenizer,
            neurons,
            texts[config.languages[1]],
            steps=config.steps,
            tokens_per_step=1024,
            form=form,
            seed=config.seed,
        )
        for model, form in forms
    ]
    for what, delta in (("train, CPU fused", deltas[1]), ("train", deltas[2])):
        run.log([{**facts, "what": what, "steps": config.steps, **compare_deltas(delta, deltas[0])}])


def compare_deltas(ours: bs.Delta, theirs: bs.Delta) -> dict[str, float]:
    """The relative RMS difference of all trained values from the base."""
    pairs = [(ours.rows[name].double(), values.double()) for name, values in theirs.rows.items()]
    gap = sum(float((one - two).square().sum()) for one, two in pairs)
    return {"values apart": (gap / sum(float(two.square().sum()) for _, two in pairs)) ** 0.5}


def device_name(device: str) -> str:
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else device


if __name__ == "__main__":
    run_experiment(Config, run)
