"""Row 34: alignment as an objective."""

from collections.abc import Mapping
from statistics import mean
from typing import Any

import numpy as np
import torch

import babelscope as bs
from babelscope.subnetworks import (
    ParallelPairs,
    contrastive_loss,
)
from babelscope.subnetworks.translation_pairs import mean_states
from rows.alignment_runs import LANGUAGES, ONCE, alignment_runs, gains_at
from rows.result import Headline, Inputs, Planted, RowResult, Verdict, Witness
from rows.training_text import REFERENCE, span


def contrast_witnesses(model: Any, tokenizer: Any) -> list[Witness]:
    """The loss in numpy, its gradient by finite differences, and the states by transformers' own output."""
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, 12, 20, generator=generator, dtype=torch.float64).unbind()

    def by_numpy(x: np.ndarray, y: np.ndarray) -> float:
        x, y = (side / np.linalg.norm(side, axis=1, keepdims=True) for side in (x, y))
        scores = np.exp(x @ y.T / 0.1)
        diagonal = np.diag(scores)
        return float(-(np.log(diagonal / scores.sum(1)) + np.log(diagonal / scores.sum(0))).mean() / 2)

    leaf = first.clone().requires_grad_()
    loss = contrastive_loss(leaf, second)
    loss.backward()
    assert leaf.grad is not None
    gaps = []
    for place in range(0, first.numel(), 7):
        moved = []
        for sign in (1, -1):
            x = first.numpy().copy()
            x.ravel()[place] += sign * 1e-6
            moved.append(by_numpy(x, second.numpy()))
        gaps.append(abs((moved[0] - moved[1]) / 2e-6 - float(leaf.grad.view(-1)[place])))
    text = bs.load_corpus("reference", LANGUAGES, split="valid")
    side = ParallelPairs.of(tokenizer, text, against="en").batch(0, 16).second
    with torch.no_grad():
        ours = mean_states(bs.layout_of(model), side, 3)
        errors = []
        for row, (ids, real, counted) in enumerate(zip(side.input_ids, side.real, side.counted, strict=True)):
            states = model(ids[real][None], output_hidden_states=True).hidden_states[4][0]
            errors.append(float((states[counted[real]].mean(dim=0) - ours[row]).abs().max()))
    return [
        Witness(
            what="the loss in numpy, 12 pairs, in nats",
            difference=abs(float(loss.detach()) - by_numpy(first.numpy(), second.numpy())),
            bar=1e-9,
        ),
        Witness(what=f"its gradient by finite differences of numpy's loss, {len(gaps)} values", difference=max(gaps),
                bar=1e-4),
        Witness(what="mean states of layer 3 by transformers' hidden_states, 16 sentences", difference=max(errors),
                bar=1e-4),
    ]  # fmt: skip


def planted_rotation() -> Planted:
    """Vectors of one language are the other's, turned; a matrix trained by the loss alone turns them back."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(128, 8, generator=generator)
    y = x @ torch.linalg.qr(torch.randn(8, 8, generator=generator)).Q
    weight = torch.eye(8).requires_grad_()
    optimizer = torch.optim.Adam([weight], lr=0.05)
    for _ in range(200):
        part = torch.randperm(64, generator=generator)[:32]
        optimizer.zero_grad()
        contrastive_loss(x[part] @ weight, y[part]).backward()
        optimizer.step()
    turned = torch.nn.functional.normalize((x @ weight.detach())[64:], dim=1)
    nearest = (turned @ torch.nn.functional.normalize(y[64:], dim=1).T).argmax(dim=1)
    right = float((nearest == torch.arange(64)).double().mean())
    return Planted(what="a rotation in 8 dimensions, 64 vectors held out", recall=right, precision=right)


def contrast(inputs: Inputs) -> RowResult:
    """Row 34: translations drawn together at one layer, in turn with text, by LoRA."""
    runs = alignment_runs("right pairs", "shuffled pairs", *ONCE)
    model, tokenizer = bs.open_model("reference")
    right, shuffled = (runs[name] for name in ("right pairs", "shuffled pairs"))
    rises, wrong = ([gains_at(run, "mexa") for run in part] for part in (right, shuffled))
    verdict: Verdict = "in shape" if all(a > 0 and a > b for a, b in zip(rises, wrong, strict=True)) else "not"
    layer = right[0]["layer"]
    unrelated = [float(run["after"].mean("unrelated")[layer] - run["before"].mean("unrelated")[layer]) for run in right]

    def bits(run: Mapping[str, Any]) -> float:
        before, after = run["bits"]
        return mean(after[tag] - before[tag] for tag in before)

    others = "; ".join(
        f"{name}: {gains_at(runs[name][0], 'mexa'):+.3f}" for name in ("task only", "first layer", "last layer")
    )
    return RowResult(
        witnesses=contrast_witnesses(model, tokenizer),
        planted=[planted_rotation()],
        headlines=[
            Headline(
                paper="aligning a middle layer raises retrieval and cross-lingual transfer (slot filling, "
                "translation, structured text)",
                ours=f"layer {layer} of {model.config.num_hidden_layers}, by retrieval on valid text; rise of MEXA at "
                f"the best layer, en with fi and hi: {span(rises)}; rise of the cosine of unrelated sentences "
                f"{span(unrelated)}; rise of bits per byte {span([bits(run) for run in right])}",
                control=f"shuffled pairs: {span(wrong)}, bits per byte {span([bits(run) for run in shuffled])}; "
                f"{others}",
                model=REFERENCE,
                verdict=verdict,
            )
        ],
        absent=["tasks with labels in several languages: no such training text"],
    )


# General knowledge subtracted.
