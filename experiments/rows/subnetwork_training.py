"""Row 15: training only a language's subnetwork."""

from typing import Any

import torch

import babelscope as bs
from babelscope.adaptation import Material, Method, adapt
from babelscope.subnetworks import (
    train_subnetwork,
)
from rows.result import Headline, Inputs, RowResult, Verdict, Witness
from rows.training_text import REFERENCE, SEEDS, mono, span


def step_witnesses(model: Any, tokenizer: Any, neurons: Any, text: list[str]) -> list[Witness]:
    """One step of our training beside gradient and AdamW of plain torch in float64, and all weights outside."""
    rate, length = 1e-3, 64
    settings = {"steps": 1, "learning_rate": rate, "tokens_per_step": 512, "max_length": length, "warmup": 0.0}
    delta = train_subnetwork(model, tokenizer, neurons, text, **settings, clip=float("inf"))
    mixture = Material.prepare(
        model, tokenizer, language=neurons.languages[0], documents=text, dev=text, test={neurons.languages[0]: text},
        max_length=length, same_text=True,
    ).mixture  # fmt: skip
    rows = mixture.rows(0, 8)
    double = bs.open_model("reference")[0].double()
    total, scored = torch.zeros((), dtype=torch.float64), int(rows.scored.sum())
    for ids, positions, is_scored in zip(rows.input_ids, rows.position_ids, rows.scored, strict=True):
        starts = [*(positions == 0).nonzero()[:, 0].tolist(), len(ids)]
        for first, end in zip(starts, starts[1:], strict=False):
            logits = double(ids[None, first:end]).logits[0]
            losses = torch.nn.functional.cross_entropy(logits[:-1], ids[first + 1 : end], reduction="none")
            total = total + (losses * is_scored[first + 1 : end]).sum()
    (total / scored).backward()
    gaps, errors, count = [], [], 0
    for layer in delta.layers:
        mlp = double.model.layers[layer].mlp
        indices, changes = delta.layer_of(layer)
        for role, change in changes.items():
            weight = getattr(mlp, f"{role}_proj").weight
            grad = (weight.grad.T if role == "down" else weight.grad)[indices.long()]
            # First step of AdamW: m / (1 - β₁) = g, √(v / (1 - β₂)) = |g|.
            step = -rate * grad / (grad.abs() + 1e-8)
            # Near zero the sign of the gradient is rounding's.
            clear = grad.abs() > 1e-3 * grad.abs().max()
            gaps.append(float(((change.double() - step).abs() / rate)[clear].max()) if bool(clear.any()) else 0.0)
            count += int(clear.sum())
    with delta.applied(model):
        untouched = bs.open_model("reference")[0]
        by_name = dict(untouched.named_parameters())
        for name, value in model.named_parameters():
            changed = (value != by_name[name]).nonzero()
            errors.append(len(changed))
    outside = sum(errors) - sum(int((rows != 0).sum()) for rows in delta.rows.values())
    return [
        Witness(
            what=f"one step of {count:,} values by plain transformers and AdamW in float64, in learning rates",
            difference=max(gaps),
            bar=1e-2,
        ),
        Witness(
            what="weights of the whole model that changed beside those of the neurons",
            difference=float(max(0, outside)),
            bar=0,
        ),
    ]


def subnetwork(inputs: Inputs) -> RowResult:
    """Row 15: Basque by its own neurons, by random ones, by all MLPs and by all parameters."""
    model, tokenizer = bs.open_model("reference")
    tags = ["eu", "en", "fi", "es"]
    seen, test = (bs.load_corpus("reference", tags, split=split) for split in ("train", "test"))
    observation = bs.observe(model, tokenizer, seen, sites=["mlp_gate"], tokens_per_language=4000)
    neurons = bs.select_lape(observation, top_rate=0.02)["eu"]
    text, dev = mono(inputs, "eu", "train", 1500), mono(inputs, "eu", "valid", 60)
    settings: dict[str, Any] = {"steps": 30, "tokens_per_step": 512, "evaluate_every": 15, "trail_every": 1000}
    rates: dict[Method, float] = {"subnetwork": 1e-2, "random": 1e-2, "full": 1e-3}
    gains: dict[str, list[float]] = {}
    harms: dict[str, list[float]] = {}
    for seed in SEEDS:
        prepared = Material.prepare(
            model, tokenizer, language="eu", documents=text, dev=dev, test=test.head(40), max_length=64, seed=seed
        )
        for method, rate in rates.items():
            result = adapt(prepared, method, neurons=neurons, learning_rate=rate, seed=seed, **settings)
            gains.setdefault(method, []).append(result.gain("eu"))
            harms.setdefault(method, []).append(result.harm("eu"))
    share = result_share(model, neurons)
    ahead = [a > b for a, b in zip(gains["subnetwork"], gains["random"], strict=True)]
    spared = [a < b for a, b in zip(harms["subnetwork"], harms["full"], strict=True)]
    beyond = [a > b for a, b in zip(gains["subnetwork"], gains["full"], strict=True)]
    verdict: Verdict = "in shape" if all(ahead) and all(spared) and all(beyond) else "not"
    return RowResult(
        witnesses=step_witnesses(model, tokenizer, neurons, text[:100]),
        headlines=[
            Headline(
                paper="training a language's subnetwork, at most 1 % of the parameters, beats full fine-tuning, LoRA "
                "and random subsets",
                ours=f"{share:.2%} of the parameters: gain {span(gains['subnetwork'])}, harm "
                f"{span(harms['subnetwork'])} bits per byte; all parameters: {span(gains['full'])}, "
                f"{span(harms['full'])}",
                control=f"random neurons, layer-matched: {span(gains['random'])}, {span(harms['random'])}",
                model=REFERENCE,
                verdict=verdict,
            )
        ],
    )


def result_share(model: Any, neurons: Any) -> float:
    values = 3 * model.config.hidden_size * len(neurons.indices)
    return values / sum(parameter.numel() for parameter in model.parameters())


# Alignment of translations.
