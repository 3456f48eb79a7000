"""Row 4's training: all neurons but a language's own are 0 in every pass."""

from typing import Any

import torch

import babelscope as bs
from babelscope.adaptation import Material, adapt, build_student
from babelscope.neurons import Specialization
from babelscope.reference import MODEL
from rows.neuron_witnesses import on_gates
from rows.plain import largest, opened
from rows.result import Headline, Witness

LANGUAGE, OTHERS, STEPS, SEEDS = "eu", ("en", "fi", "es"), 20, (0, 1, 2)


def neurons_of(model, tokenizer) -> bs.NeuronSet:
    """Neurons that carry most of each language's activity."""
    texts = bs.load_corpus("reference", [LANGUAGE, *OTHERS], split="train")
    return Specialization().choose(bs.observe(model, tokenizer, texts, tokens_per_language=3000))


def step_witness() -> Witness:
    """One step in float64 beside plain transformers whose gates are multiplied by the mask."""
    model, tokenizer = bs.open_model("reference", device="cpu", dtype="float64")
    neurons = neurons_of(model, tokenizer)[LANGUAGE]
    plain, _ = opened(str(MODEL), torch.float64)
    text = [document.text for document in bs.load_corpus("reference", [LANGUAGE], split="valid")[bs.Language(LANGUAGE)]]
    ids = torch.tensor([token for line in text for token in tokenizer(line)["input_ids"]][:256]).view(4, 64)
    mask, rate = neurons.mask()[0], 1e-3
    student: Any = build_student("sparse-forward", bs.layout_of(model), neurons=neurons)
    with student.installed():
        model(ids, labels=ids).loss.backward()  # pyright: ignore[reportCallIssue]
        student.step(rate, 1.0)
        ours = {name.removeprefix("value/"): value.clone() for name, value in student.values().items()}
    trained = dict(plain.named_parameters())
    with on_gates(plain, lambda layer, gate: gate * mask[layer].to(gate)):
        plain(ids, labels=ids).loss.backward()
    torch.optim.AdamW([trained[name] for name in ours], lr=rate, betas=(0.9, 0.95), weight_decay=0.0).step()
    return Witness(
        what=f"one step of {student.trained:,} values in float64 beside plain transformers with gates times the "
        "mask and torch's AdamW, in learning rates",
        difference=max(largest(value, trained[name].detach()) for name, value in ours.items()) / rate,
        bar=1e-3,
    )


def headline() -> Headline:
    """Basque by its specialized neurons with the others silent, by the same ones in the whole model, and by all."""
    model, tokenizer = bs.open_model("reference", device="cpu", dtype="float32")
    sets = neurons_of(model, tokenizer)
    train, valid, test = (
        bs.load_corpus("reference", [LANGUAGE, *OTHERS], split=split) for split in ("train", "valid", "test")
    )
    documents, dev = ([d.text for d in part[bs.Language(LANGUAGE)]] for part in (train, valid))
    gains: dict[str, list[float]] = {}
    for seed in SEEDS:
        prepared = Material.prepare(
            model,
            tokenizer,
            language=LANGUAGE,
            documents=documents,
            dev=dev,
            test=test.head(40),
            max_length=64,
            seed=seed,
        )
        for method, rate in (("sparse-forward", 1e-3), ("subnetwork", 1e-3), ("ffn", 1e-3)):
            result = adapt(
                prepared,
                method,  # pyright: ignore[reportArgumentType]
                neurons=sets[LANGUAGE],
                steps=STEPS,
                learning_rate=rate,
                tokens_per_step=512,
                evaluate_every=10,
                trail_every=1000,
                seed=seed,
            )
            gains.setdefault(method, []).append(result.gain(LANGUAGE))

    def span(method: str) -> str:
        values = gains[method]
        return f"{sum(values) / len(values):+.3f} ({min(values):+.3f} to {max(values):+.3f})"

    ahead = all(a > b for a, b in zip(gains["sparse-forward"], gains["ffn"], strict=True))
    share = float(sets[LANGUAGE].mask().float().mean())
    return Headline(
        paper="training whose forward pass uses each task's neurons alone beats the whole network (IWSLT, EC30)",
        ours=f"gain in Basque bits per byte: {100 * share:.0f} % of the neurons trained with the others at 0 "
        f"{span('sparse-forward')}, the same neurons in the whole model {span('subnetwork')}, {len(SEEDS)} seeds",
        control=f"all MLPs {span('ffn')}",
        model="the bundled model, 9 million parameters",
        verdict="in shape" if ahead else "not",
    )
