"""Rows 1 and 2: the neurons of languages, and the parts of a model that they divide."""

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch

import babelscope as bs
from babelscope.controls import neuron_shards
from babelscope.neurons import penalty_sweep
from babelscope.neurons.neuron_selection import counts_of, neuron_rule
from babelscope.probes import cut_profile, role_parts
from babelscope.reference import MODEL
from rows.neuron_witnesses import (
    best_cut,
    counts_by_hooks,
    planted_model,
    planted_texts,
    published_classes,
    published_lape,
    recall_and_precision,
)
from rows.result import Headline, Inputs, Planted, RowResult, Witness

SIX = ("en", "de", "fr", "fi", "ru", "zh")
FOUR = ("en", "de", "fi", "ru")
PLANTED_KINDS = ("specific",) * 3 + ("general",) * 4 + ("related",) * 3 + ("specific",) * 2
CUT = (3, 7, 10)
"""Where the planted kinds change."""
PLANTED_BAR = 0.96
"""Four of a hundred rates are 1 by construction, above those of random neurons."""


def gemma_counts(inputs: Inputs, *, tokens: int = 6_000):
    """Gemma 3 270M, its tokenizer, and counts over six languages of real text."""
    model, tokenizer = bs.open_model(inputs.gemma, device="cpu", dtype="float32")
    texts = bs.load_corpus(f"{inputs.corpora}/mono", SIX, split="valid").head(110)
    observed = bs.observe(model, tokenizer, texts.head(90), tokens_per_language=tokens, max_length=256)
    return model, tokenizer, texts, observed


def reference_counts(languages=FOUR, *, lines: int = 25):
    """The bundled model, its counts by hooks of torch, and the library's on the same text."""
    model, tokenizer = bs.open_model("reference", device="cpu", dtype="float32")
    texts = bs.load_corpus("reference", languages, split="valid").head(lines)
    plain: dict[str, Sequence[str]] = {
        str(tag): [document.text for document in documents] for tag, documents in texts.items()
    }
    return model, tokenizer, texts, counts_by_hooks(model, tokenizer, plain)


def planted_counts():
    """The planted model's places and the library's counts of it."""
    model, tokenizer, places = planted_model(str(MODEL), PLANTED_KINDS)
    return places, bs.observe(model, tokenizer, planted_texts())


def lape(inputs: Inputs) -> RowResult:
    """Row 1: neurons by entropy of activation."""
    model, tokenizer, texts, (active, tokens) = reference_counts()
    observed = bs.observe(model, tokenizer, texts, tokens_per_language=None)
    sets = bs.select_lape(observed, top_rate=0.05, min_count=0)
    theirs = published_lape(active, tokens, top=0.05, rate=0.95)
    places, counts = planted_counts()
    n_planted = len(places["specific"])
    found = bs.select_lape(counts, top_rate=n_planted / (96 * len(PLANTED_KINDS)))
    chosen = {(tag, *place) for tag, rows in found.as_dict().items() for place in rows}
    true = {(tag, *place) for tag in counts.languages for place in places[tag]}
    recall, precision = recall_and_precision(chosen, true)
    _, _, _, gemma = gemma_counts(inputs)
    ends, null = shares_at_the_ends(gemma)
    return RowResult(
        witnesses=[
            Witness(
                what=f"counts by hooks of torch, {active.size} of them, in tokens",
                difference=float(np.abs(observed["mlp_gate"].active.numpy() - active).max()),
                bar=0,
            ),
            Witness(
                what=f"the published rule in numpy on those counts, {int(theirs.sum())} neurons of "
                f"{len(FOUR)} languages, neurons that one has and the other has not",
                difference=float((sets.mask().numpy() != theirs).sum()),
                bar=0,
            ),
        ],
        planted=[
            Planted(what=f"{len(true)} neurons that fire for one language alone", recall=recall, precision=precision)
        ],
        headlines=[
            Headline(
                paper="language neurons lie mostly in the lowest and highest layers (LLaMA-2, BLOOM)",
                ours=f"{ends:.2f} of the neurons lie in the lower and upper quarter of the layers",
                control=f"{null.mean():.2f}, at most {null.max():.2f}, with labels permuted by shard",
                model="Gemma 3 270M",
                verdict="in shape" if ends > max(0.5, float(null.max())) else "not",
            )
        ],
    )


def shares_at_the_ends(observed, draws: int = 19):
    """Share of LAPE's neurons in the first and last quarter of layers, and the same under permuted labels."""
    rule = neuron_rule("lape", top_rate=0.01)

    def share(mask):
        layers = mask.any(dim=0).sum(dim=1).double()
        quarter = len(layers) // 4
        return float((layers[:quarter].sum() + layers[-quarter:].sum()) / layers.sum())

    sums = neuron_shards(observed, "mlp_gate", parallel=False).permuted(draws, 0)
    null = np.array([share(rule.select(counts_of(resample)).mask) for resample in sums])
    return share(rule.choose(observed).mask()), null


def roles(inputs: Inputs) -> RowResult:
    """Row 2: specific, related and general neurons, and the parts that they divide."""
    _, _, texts, (active, tokens) = reference_counts()
    theirs = published_classes(active, tokens, rate=0.95)
    classified = bs.select_entropy_lambda(active, tokens, FOUR, min_count=0)
    profile = np.stack([(theirs == number).mean(axis=1) for number in (1, 2, 3)], axis=1)
    ours, explained = cut_profile(torch.from_numpy(profile), 4)
    places, counts = planted_counts()
    rule = partial(bs.select_entropy_lambda, bar_rate=PLANTED_BAR)
    above = rule(counts).above
    truth = [Planted(what=f"{len(CUT)} boundaries between four kinds of layers", **cut_found(counts, rule))]
    for number, kind in enumerate(("specific", "related", "general"), start=1):
        seen = {(layer, neuron) for layer, neuron in (above == number).nonzero().tolist()}
        recall, precision = recall_and_precision(seen, set(places[kind]))
        truth.append(Planted(what=f"{len(places[kind])} {kind} neurons", recall=recall, precision=precision))
    _, _, _, gemma = gemma_counts(inputs)
    parts = role_parts(gemma, bs.select_entropy_lambda, parallel=False, resamples=19)
    shares = parts.profile.numpy()
    whole = parts.rows()[0]
    middle = len(shares) // 4, len(shares) - len(shares) // 4
    steps = penalty_sweep(gemma)
    chosen = bs.select_entropy_lambda(gemma)
    ends = np.concatenate([shares[: middle[0], 0], shares[middle[1] :, 0]]).mean()
    holds = whole.p <= 0.05 and shares[middle[0] : middle[1], 2].mean() > shares[middle[1] :, 2].mean()
    in_parts = "; ".join(
        f"{part[0]}–{part[-1]}: {100 * shares[list(part), 0].mean():.1f}/{100 * shares[list(part), 1].mean():.1f}/"
        f"{100 * shares[list(part), 2].mean():.1f} %"
        for part in parts.layers
    )
    return RowResult(
        witnesses=[
            Witness(
                what=f"classes of all {theirs.size} neurons in numpy on counts by hooks, neurons in another class",
                difference=float((classified.above.numpy() != theirs).sum()),
                bar=0,
            ),
            Witness(
                what="the best of all cuts into four parts, tried one by one, boundaries elsewhere",
                difference=float(
                    sum(a != b for a, b in zip(best_cut(profile, 4), [p[0] for p in ours[1:]], strict=True))
                ),
                bar=0,
            ),
        ],
        planted=truth,
        headlines=[
            Headline(
                paper="four parts by the classes: the middle is general, few general neurons near the output, language "
                "neurons at the ends (MistralMathOctopus 7B, LLaMA)",
                ours=f"specific/related/general in layers {in_parts}; the cut explains {whole.estimate:.2f} of the "
                f"variance, p {whole.p:.3f}; {int((chosen.above == 3).sum())} general neurons, of which the searched "
                f"penalty {chosen.penalty:.3f} selects {int((chosen.classes == 3).sum())} and 0.2 selects "
                f"{steps[-1].general}",
                control=f"layers in random order, cut anew: {float(parts.null.mean()):.2f}; specific in the outer "
                f"quarters {100 * ends:.1f} %",
                model="Gemma 3 270M, six languages",
                verdict="in shape" if holds else "not",
            )
        ],
    )


def cut_found(counts, rule) -> dict[str, float]:
    """Recall and precision of the planted boundaries."""
    starts = set(role_parts(counts, rule, parallel=False, resamples=0, draws=1).starts)
    recall, precision = recall_and_precision(starts, set(CUT))
    return {"recall": recall, "precision": precision}
