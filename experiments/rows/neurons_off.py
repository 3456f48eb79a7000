"""Rows 5 and 6: what breaks, and what comes out, with the neurons of languages off."""

from contextlib import contextmanager

import numpy as np
import torch

import babelscope as bs
from babelscope.ablation import ablation_matrix
from babelscope.steering.directions import deactivate_neurons
from babelscope.steering.directions.neurons import LITTLE, MUCH
from babelscope.steering.sweeps import Decoding, fallback_languages, make_prompts
from rows.neuron_witnesses import on_gates
from rows.neurons import FOUR, gemma_counts, reference_counts
from rows.result import Headline, Inputs, RowResult, Witness


def ablation(inputs: Inputs) -> RowResult:
    """Row 5: harm of each language's neurons on each text."""
    model, tokenizer, texts, _ = reference_counts(lines=60)
    observed = bs.observe(model, tokenizer, texts, sites=["mlp_gate", "mlp_inner"], tokens_per_language=None)
    sets = bs.select_lape(observed, top_rate=0.03, min_count=0)
    held_out = bs.load_corpus("reference", FOUR, split="test").head(12)
    table = ablation_matrix(model, tokenizer, sets, held_out, draws=9, observation=observed, max_tokens=600, seed=0)
    documents = [document.text for document in held_out[bs.Language("de")]]
    length = len(table.base[FOUR.index("de")].nats)
    base = nats_of(model, tokenizer, documents[:length])
    with zeroed_columns(model, sets.as_dict()[bs.Language("fi")]):
        without = nats_of(model, tokenizer, documents[:length])
    ours = (
        table.base[FOUR.index("de")].nats[: length - 1],
        table.delta[FOUR.index("fi")][FOUR.index("de")][: length - 1],
    )
    # The last document may be cut at the number of tokens that was asked for.
    theirs = base[: length - 1], without[: length - 1] - base[: length - 1]
    harm, own = table.relative_harm, table.own_harm()
    others = [float(harm[row, column]) for row in range(4) for column in range(4) if row != column]
    most, drawn = sum(table.hurt_most().values()), table.drawn_harm("layer_matched")
    return RowResult(
        witnesses=[
            Witness(
                what=f"{name} of {length - 1} German documents, Finnish neurons off, by down projections with "
                "columns of zeros, in nats",
                difference=float(np.abs(np.asarray(mine) - other).max()),
                bar=0.01,
            )
            for name, mine, other in zip(("loss", "harm"), ours, theirs, strict=True)
        ],
        headlines=[
            Headline(
                paper="switching a language's neurons off raises perplexity most in that language (LLaMA-2 7B to 70B)",
                ours=f"own text is hurt most in {most} of {len(FOUR)} languages, by the whole interval; own harm "
                + ", ".join(f"{tag} {100 * value:.1f} %" for tag, value in own.items())
                + f", other texts {100 * np.mean(others):.1f} %",
                control="random sets of as many neurons in each layer: "
                + ", ".join(f"{tag} {100 * np.mean(rows):.1f} %" for tag, rows in drawn.items()),
                model="the bundled model",
                verdict="reproduced" if most == len(FOUR) else "in shape" if 2 * most > len(FOUR) else "not",
            )
        ],
    )


def nats_of(model, tokenizer, lines) -> np.ndarray:
    """Loss of each text by transformers alone: all tokens after the first."""
    losses = []
    for line in lines:
        ids = torch.tensor([tokenizer(line)["input_ids"]])
        with torch.no_grad():
            logits = model(ids).logits[0, :-1].double()
        losses.append(float(torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum")))
    return np.array(losses)


@contextmanager
def zeroed_columns(model, places):
    """While open, the down projections have zeros in the columns of some neurons."""
    before = [layer.mlp.down_proj.weight.detach().clone() for layer in model.model.layers]
    with torch.no_grad():
        for layer, neuron in places:
            model.model.layers[layer].mlp.down_proj.weight[:, neuron] = 0
        yield
        for layer, weight in zip(model.model.layers, before, strict=True):
            layer.mlp.down_proj.weight.copy_(weight)


ORDER = ("en", "fr", "de", "ru", "zh")


def arithmetic(inputs: Inputs) -> RowResult:
    """Row 6: neurons off in seven ways, several sources, and the languages that are left."""
    model, tokenizer, texts, _ = reference_counts(lines=12)
    observed = bs.observe(model, tokenizer, texts, tokens_per_language=None)
    sets = bs.select_lape(observed, top_rate=0.05, min_count=0)
    ids = torch.tensor([tokenizer(texts["en"][0].text)["input_ids"][:24]])
    by_layer = [
        sorted({n for tag in (bs.Language("en"), bs.Language("de")) for layer, n in sets.as_dict()[tag] if layer == at})
        for at in range(sets.n_layers)
    ]
    differences = {}
    for by in ("zero", "negative", "mean", "random", "shrink", "noise", "invert"):
        with bs.steer(model, deactivate_neurons(sets, ["en", "de"], by)), torch.no_grad():
            ours = model(ids).logits
        with torch.no_grad(), on_gates(model, gate_change(by, by_layer)):
            differences[by] = float((model(ids).logits - ours).abs().max())
    mean = (observed["mlp_gate"].sum / observed.token_counts)[..., FOUR.index("fi")]
    finnish = [[n for layer, n in sets.as_dict()[bs.Language("fi")] if layer == at] for at in range(sets.n_layers)]

    def add_on(layer, gate):
        changed = gate.clone()
        changed[..., by_layer[layer]] = 0.0
        changed[..., finnish[layer]] += mean[layer][finnish[layer]].float()
        return changed

    recipe = bs.language_arithmetic(sets, observed, target="fi", source=["en", "de"])
    with bs.steer(model, recipe), torch.no_grad():
        ours = model(ids).logits
    with torch.no_grad(), on_gates(model, add_on):
        two_sources = float((model(ids).logits - ours).abs().max())
    found = gemma_fallbacks(inputs)
    last = found.rows()[-1]
    languages, share, control = found.shares()
    left = {tag: value for tag, value in zip(languages, share[-1], strict=True) if value and tag != "en"}
    kept = float(control[-1][languages.index("en")])
    return RowResult(
        witnesses=[
            Witness(
                what="logits with the neurons of two languages off in each of seven ways, by hooks of torch on the "
                f"activated gate ({', '.join(differences)})",
                difference=max(differences.values()),
                bar=1e-4,
            ),
            Witness(
                what="logits with the neurons of two languages at 0 and Finnish means added, by the same hooks",
                difference=two_sources,
                bar=1e-4,
            ),
        ],
        headlines=[
            Headline(
                paper="with the neurons of more and more languages off, answers to English prompts fall back to other "
                "languages in an order (Llama-3.1-8B, 70 prompts)",
                ours=f"with {', '.join(found.steps[-1].off)} off ({found.steps[-1].neurons} neurons) "
                f"{100 * last.estimate:.0f} % [{100 * last.low:.0f}, {100 * last.high:.0f}] of answers leave English: "
                + ", ".join(f"{tag or 'none'} {100 * value:.0f} %" for tag, value in left.items()),
                control=f"random sets of the same sizes: {100 * (1 - kept):.0f} % leave English, p {last.p:.3g}",
                model="Gemma 3 270M, base",
                verdict="in shape" if last.p <= 0.05 and any(tag for tag in left) else "not",
            )
        ],
    )


def gate_change(by, by_layer):
    """What a way of switching off makes of an activated gate, written from the published script."""
    generator = torch.Generator().manual_seed(0)
    spread = {"random": LITTLE, "noise": MUCH}.get(by, 0.0)
    noise = [spread * torch.randn(len(row), generator=generator) if row else None for row in by_layer]

    def change(layer, gate):
        row = by_layer[layer]
        if not row:
            return None
        values, changed = gate[..., row], gate.clone()
        changed[..., row] = {
            "zero": values * 0,
            "negative": values * 0 - 1,
            "mean": gate.mean(dim=-1, keepdim=True).expand(values.shape),
            "random": values * 0 + (noise[layer] if by == "random" else 0),
            "shrink": values * -0.1,
            "noise": values + (noise[layer] if by == "noise" else 0),
            "invert": -values,
        }[by]
        return changed

    return change


def gemma_fallbacks(inputs: Inputs):
    """Gemma's continuations of 16 English texts with the neurons of one language after the other off."""
    model, tokenizer, texts, observed = gemma_counts(inputs)
    sets = bs.select_lape(observed, top_rate=0.02)
    prompts = make_prompts(texts.only(["en"]), per_language=16, start=90, longest=200)
    decoding = Decoding(new_tokens=24, temperature=0.0)
    return fallback_languages(model, tokenizer, sets, prompts, order=ORDER, draws=2, decoding=decoding)
