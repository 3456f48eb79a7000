"""Row 4: neurons that carry most of a language's activity, and which languages share them."""

import numpy as np
import torch
from scipy.stats import spearmanr

import babelscope as bs
from babelscope.neurons import Specialization, UnitCounts
from babelscope.probes import lineage_of, set_proximity
from rows import sparse_forward
from rows.neuron_witnesses import recall_and_precision
from rows.neurons import FOUR, reference_counts
from rows.result import Headline, Inputs, Planted, RowResult, Witness

EIGHT = ("en", "de", "nl", "es", "it", "ru", "uk", "fi")


def specialization(inputs: Inputs) -> RowResult:
    """Row 4: selection by cumulative activity, overlap by layer, and its relation to families."""
    _, _, _, (active, tokens) = reference_counts()
    choice = Specialization(min_count=0).select(UnitCounts(torch.from_numpy(active), torch.from_numpy(tokens)))
    by_hand = np.stack([[fewest(layer[:, k] / tokens[k], 0.95) for layer in active] for k in range(len(FOUR))])
    model, tokenizer = bs.open_model(inputs.gemma, device="cpu", dtype="float32")
    texts = bs.load_corpus(f"{inputs.corpora}/mono", EIGHT, split="valid").head(60)
    observed = bs.observe(model, tokenizer, texts, tokens_per_language=1500, max_length=256)
    sets = Specialization().choose(observed)
    found = set_proximity(sets, draws=1999)
    mask, pairs = sets.mask().numpy(), np.triu_indices(len(EIGHT), 1)
    kin = lineage_of(EIGHT)
    relation = [degree(kin[sets.languages[a]], kin[sets.languages[b]]) for a, b in zip(*pairs, strict=True)]
    overlaps, correlations = [], []
    for layer in range(sets.n_layers):
        rows = [set(np.flatnonzero(row)) for row in mask[:, layer]]
        shared = [len(rows[a] & rows[b]) / len(rows[a] | rows[b]) for a, b in zip(*pairs, strict=True)]
        overlaps.append(np.abs(np.array(shared) - found.overlap[layer].numpy()[pairs]).max())
        correlations.append(abs(float(np.asarray(spearmanr(shared, relation))[0]) - found.tests[layer].correlation))
    tests = [found.tests[layer] for layer in range(sets.n_layers)]
    sure = [layer for layer, test in enumerate(tests) if test.p <= 0.05]
    best = max(range(len(tests)), key=lambda layer: tests[layer].correlation)
    mean = [float(matrix.numpy()[pairs].mean()) for matrix in found.overlap]
    return RowResult(
        witnesses=[
            Witness(
                what=f"the fewest neurons one by one in numpy on counts by hooks, {int(by_hand.sum())} neurons, "
                "those that one has and the other has not",
                difference=float((choice.mask.numpy() != by_hand).sum()),
                bar=0,
            ),
            Witness(what="intersection over union of Python's sets", difference=float(max(overlaps)), bar=1e-12),
            Witness(what="scipy's rank correlation in every layer", difference=float(max(correlations)), bar=1e-9),
            sparse_forward.step_witness(),
        ],
        planted=planted(),
        headlines=[
            Headline(
                paper="related languages share more of their specialized neurons, and how many changes through the "
                "layers (translation models, IWSLT and EC30)",
                ours=f"a language has {100 * mask.mean():.0f} % of the neurons; overlap "
                f"{mean[0]:.2f} in the first layer, {min(mean):.2f} at least (layer {int(np.argmin(mean))}), "
                f"{mean[-1]:.2f} in the last; with relation {tests[best].correlation:.2f} (layer {best}, "
                f"p {tests[best].p:.4f}), p ≤ .05 in {len(sure)} of {len(tests)} layers",
                control=f"languages change places in the table: mean correlation {tests[best].null:.2f}",
                model="Gemma 3 270M, eight languages",
                verdict="in shape" if len(sure) > 0.05 * len(tests) * 3 and tests[best].gap > 0 else "not",
            ),
            sparse_forward.headline(),
        ],
        absent=["encoders and decoders of translation models, and their tasks of language pairs"],
    )


def fewest(rate: np.ndarray, share: float) -> np.ndarray:
    """The neurons active most often, added until they carry the share of the sum."""
    mask, total = np.zeros(len(rate), dtype=bool), 0.0
    for neuron in np.argsort(-rate, kind="stable"):
        if total >= share * rate.sum() * (1 - 1e-12):
            break
        mask[neuron], total = True, total + rate[neuron]
    return mask & (rate > 0)


def degree(first, second) -> int:
    """2 the same branch, 1 the same family, 0 neither."""
    return int(first.family == second.family) + int(first == second)


def planted() -> list[Planted]:
    """Counts in which five neurons of a layer carry 96 % of a language's activity."""
    rng = np.random.default_rng(0)
    places = {(k, layer): set(rng.choice(100, 5, replace=False).tolist()) for k in range(4) for layer in range(3)}
    active = rng.integers(0, 3, (3, 100, 4)) * 20
    for (k, layer), neurons in places.items():
        active[layer, :, k] = np.where(active[layer, :, k] > 20, 20, active[layer, :, k])
        rest = active[layer, :, k].sum()
        active[layer, sorted(neurons), k] = int(np.ceil(rest * 0.96 / 0.04 / 5))
    counts = UnitCounts(torch.from_numpy(active), torch.full((4,), int(active.max())))
    mask = Specialization(min_count=0).select(counts).mask
    true = {(k, layer, neuron) for (k, layer), neurons in places.items() for neuron in neurons}
    recall, precision = recall_and_precision({tuple(place) for place in mask.nonzero().tolist()}, true)
    return [
        Planted(what=f"{len(true)} neurons that carry 96 % of a layer's activity", recall=recall, precision=precision)
    ]
