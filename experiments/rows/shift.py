"""Row 14: shift to the dominant language and back (ShifCon)."""

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from scipy.linalg import eigh

import babelscope as bs
from babelscope.adaptation.alignment_account import retrieval
from babelscope.languages import Language
from babelscope.probes.geometry.alignment import cosine_matrix
from babelscope.probes.geometry.sentences import record_sentences
from babelscope.steering.directions.subspaces import covariance_distance
from rows.alignment_runs import LANGUAGES, alignment_material, alignment_runs, stream_shift
from rows.result import Headline, Inputs, Planted, RowResult, Verdict, Witness
from rows.training_text import REFERENCE, span


def shift(inputs: Inputs) -> RowResult:
    """Row 14: distance of subspaces by layer, and training with the shift in place, beside contrast alone."""
    model, tokenizer = bs.open_model("reference")
    test = bs.load_corpus("reference", LANGUAGES, split="test")
    sentences = record_sentences(model, tokenizer, test, sentences=100, poolings=("mean",))
    gaps = []
    for depth in range(1, len(sentences.sites)):
        x, y = (rows.numpy() for rows in sentences.at(depth)[:2])
        kx, ky = (np.cov(rows, rowvar=False) for rows in (x, y))
        kx, ky = (0.9 * k + 0.1 * np.trace(k) / len(k) * np.eye(len(k)) for k in (kx, ky))
        expected = float(np.sqrt((np.log(eigh(ky, kx, eigvals_only=True)) ** 2).sum()))
        gaps.append(abs(covariance_distance(*sentences.at(depth)[:2]) - expected) / expected)
    runs = alignment_runs("right pairs", "shuffled pairs", "shift", "crossed shift")
    start, layer = runs["right pairs"][0]["before"], runs["right pairs"][0]["layer"]
    distances = start.mean("distance")
    falls = [
        float((run["before"].mean("distance") - run["after"].mean("distance"))[layer]) for run in runs["right pairs"]
    ]
    wrong = [float((r["before"].mean("distance") - r["after"].mean("distance"))[layer]) for r in runs["shuffled pairs"]]
    inner = float(distances[1:-1].min())
    middle = inner < min(float(distances[0]), float(distances[-1]))
    verdict: Verdict = "in shape" if middle and all(a > b for a, b in zip(falls, wrong, strict=True)) else "not"
    by_layer = ", ".join(f"{float(value):.1f}" for value in distances)
    return RowResult(
        witnesses=[
            Witness(
                what=f"distance of covariances by scipy's generalised eigenvalues, {len(gaps)} layers, relative",
                difference=max(gaps),
                bar=1e-9,
            ),
            *shift_witnesses(),
        ],
        headlines=[
            Headline(
                paper="subspaces are nearest in an area of layers, where shifting and contrast are done",
                ours=f"distance from en by layer, mean of fi and hi: {by_layer}; area {list(start.area)}; fall at "
                f"layer {layer} by contrast {span(falls)}",
                control=f"contrast of shuffled pairs: {span(wrong)}",
                model=REFERENCE,
                verdict=verdict,
            ),
            trained_with_shift(runs),
        ],
        planted=[planted_shift()],
        absent=["instruction tuning in several languages, and its tasks: no such training text"],
    )


def trained_with_shift(runs: Mapping[str, list[dict[str, Any]]]) -> Headline:
    """Bits per byte and retrieval by language, with the shift in place, beside contrast alone and wrong means."""
    material, stream = alignment_material(), stream_shift()
    english, *tags = map(Language, LANGUAGES)
    before = runs["shift"][0]["bits"][0]
    untrained = stream["shift"].bits_per_byte(material.texts["test"].head(40))

    def changes(kind: str, tag: Language) -> list[float]:
        return [run["bits"][1][tag] - before[tag] for run in runs[kind]]

    def found(kind: str, tag: Language) -> list[float]:
        return [float(run["after"].retrieval[tag][material.layer]) for run in runs[kind]]

    def line(kind: str) -> str:
        return "; ".join(f"{tag} {span(changes(kind, tag))}, found {span(found(kind, tag))}" for tag in tags)

    better = all(
        ours < min(alone, crossed)
        for tag in tags
        for ours, alone, crossed in zip(
            *(changes(kind, tag) for kind in ("shift", "right pairs", "crossed shift")), strict=True
        )
    )
    first, last = stream["shift"].layers
    begun = ", ".join(f"{tag} {float(material.start.retrieval[tag][material.layer]):.3f}" for tag in tags)
    return Headline(
        paper="shifting and contrast in training raise the performance of non-dominant languages above that of plain "
        "multilingual tuning (mathematics, reasoning, classification; 7 to 13 billion parameters)",
        ours=f"fi trained by text, fi and hi aligned with en at layer {material.layer}, text shifted after layer "
        f"{first} and back after {last}; change of bits per byte from the untouched model, and share of translations "
        f"found at the aligned layer ({begun} before): {line('shift')}; en changes by "
        f"{span(changes('shift', english))}",
        control=f"contrast without a shift: {line('right pairs')}; means of the other language: "
        f"{line('crossed shift')}; the shift without training: "
        + ", ".join(f"{tag} {untrained[tag] - before[tag]:+.3f}" for tag in tags),
        model=REFERENCE,
        verdict="in shape" if better else "not",
    )


def shift_witnesses() -> list[Witness]:
    """The shifted pass and its gradient by plain hooks in transformers, from means that transformers gave."""
    material, shift = alignment_material(), stream_shift()["shift"]
    model, tokenizer = material.model, material.tokenizer
    first, last = shift.layers
    sums: dict[str, torch.Tensor] = {}
    special = set(tokenizer.all_special_ids)
    for tag in ("en", "fi"):
        total, count = torch.zeros(2, model.config.hidden_size, dtype=torch.float64), 0
        for document in material.texts["train"][tag]:
            ids = tokenizer(document.text, return_tensors="pt", truncation=True, max_length=512).input_ids
            with torch.no_grad():
                states = model(ids, output_hidden_states=True).hidden_states
            ordinary = torch.tensor([token not in special for token in ids[0].tolist()])
            total += torch.stack([states[layer + 1][0, ordinary].double().sum(dim=0) for layer in (first, last)])
            count += int(ordinary.sum())
        sums[tag] = total / count
    steps = {first: sums["en"][0] - sums["fi"][0], last: sums["fi"][1] - sums["en"][1]}
    ours = [part.vector.double() for part in shift.recipes[Language("fi")].operations]
    gap = max(float((a - b).norm() / b.norm()) for a, b in zip(ours, (steps[first], steps[last]), strict=True))
    ids = tokenizer(material.texts["test"]["fi"][0].text, return_tensors="pt").input_ids
    ordinary = torch.tensor([[token not in special for token in ids[0].tolist()]])[..., None]
    weight = model.model.layers[last - 1].mlp.down_proj.weight
    gradients = []
    for by_hand in (False, True):
        hooks = [
            model.model.layers[layer].register_forward_hook(
                lambda module, args, output, step=step: output + ordinary * step.float()
            )
            for layer, step in steps.items()
        ] if by_hand else []  # fmt: skip
        required = weight.requires_grad
        weight.requires_grad_(True)
        with nullcontext() if by_hand else shift.over((Language("fi"),)):
            logits = model(ids).logits[0, :-1]
        loss = torch.nn.functional.cross_entropy(logits, ids[0, 1:])
        gradients.append(torch.autograd.grad(loss, weight)[0])
        weight.requires_grad_(required)
        for hook in hooks:
            hook.remove()
    return [
        Witness(what="means of en and fi at both layers by transformers' hidden states, relative", difference=gap,
                bar=1e-5),
        Witness(
            what="gradient of an MLP between the layers, by plain hooks and autograd, relative",
            difference=float((gradients[0] - gradients[1]).norm() / gradients[1].norm()),
            bar=1e-4,
        ),
    ]  # fmt: skip


def planted_shift() -> Planted:
    """States of one language are those of the other, moved away by one step: shifted, all translations are found."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, 16, generator=generator, dtype=torch.float64)
    y = x + 0.2 * torch.randn(64, 16, generator=generator, dtype=torch.float64)
    y = y + 100 * torch.randn(16, generator=generator, dtype=torch.float64)
    shifted = y + x.mean(dim=0) - y.mean(dim=0)
    right = retrieval(cosine_matrix(x, shifted))
    return Planted(
        what="translations behind a shift of a language's space, 64 sentences", recall=right, precision=right
    )


# Replay, and what other languages pay.
