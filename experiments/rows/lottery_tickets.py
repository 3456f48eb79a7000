"""Row 16: lottery-ticket sparse fine-tuning."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

import babelscope as bs
from babelscope.adaptation import LotteryTicket, Material, adapt, ticket_names
from babelscope.adaptation.lottery_ticket import ticket_student
from babelscope.evaluation import bits_per_byte
from babelscope.subnetworks import (
    Dense,
    ElementDelta,
    LearningRate,
    Plan,
    Training,
    lottery_ticket_mask,
    train,
)
from rows.result import Headline, Inputs, Planted, RowResult, Verdict, Witness
from rows.training_text import REFERENCE, SEEDS, material, mono, questions, span


def against_published_mask(
    before: Mapping[str, Any], after: Mapping[str, Any], names: Sequence[str], chosen: np.ndarray
) -> int:
    """Values that cambridgeltl/composable-sft's rule decides otherwise: below the k-th largest change, or above it.

    Those that are equal to it are all taken there; here as many as are asked for.
    """
    change = np.concatenate([np.abs(after[n].numpy() - before[n].numpy()).ravel() for n in names])
    threshold = np.partition(change, len(change) - int(chosen.sum()))[len(change) - int(chosen.sum())]
    return int((chosen & (change < threshold)).sum() + (~chosen & (change > threshold)).sum())


def mask_witness(model: Any, prepared: Material) -> Witness:
    layout, names = bs.layout_of(model), ticket_names(bs.layout_of(model))
    plan = Plan(LearningRate(3e-3, 5), rows_per_step=8)
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    after: dict[str, Any] = {}
    run = Training(layout, Dense(layout, names), prepared.mixture, Plan(LearningRate(3e-4, 5), rows_per_step=8))
    live = dict(model.named_parameters())
    train(model, run, at_end=lambda: after.update({n: live[n].detach().clone() for n in names}))
    student = ticket_student(prepared, layout, plan, LotteryTicket(share=0.01))
    assert student.masks is not None
    ours = np.concatenate([student.masks[name].numpy().ravel() for name in names])
    what = f"values chosen, by numpy's partition on the change of 5 dense steps, {len(ours):,} candidates: unlike ones"
    return Witness(what=what, difference=float(against_published_mask(before, after, names, ours)), bar=0)


def composition_witness(model: Any, changes: Sequence[ElementDelta]) -> Witness:
    base = {name: value.detach().double().numpy().copy().ravel() for name, value in model.named_parameters()}
    for change in changes:
        change.apply(model)
    unlike, total = 0, 0
    for name, value in model.named_parameters():
        for change in changes:
            if name in change.elements:
                part = change.elements[name]
                base[name][part.indices.numpy()] += part.values.double().numpy()
        unlike += int((base[name].astype(np.float32) != value.detach().numpy().ravel()).sum())
        total += base[name].size
    for change in reversed(changes):
        change.revert(model)
    what = f"weights under both changes, as base + Σ in numpy's float64, cast once, {total:,} weights: unlike ones"
    return Witness(what=what, difference=float(unlike), bar=0)


def planted_mask() -> Planted:
    generator = torch.Generator().manual_seed(0)
    before = {name: torch.randn(300, 200, generator=generator) for name in ("a", "b")}
    after = {name: value + 0.01 * torch.randn(300, 200, generator=generator) for name, value in before.items()}
    places = torch.randperm(120_000, generator=generator)[:1200]
    for number, name in enumerate(after):
        mine = places[(places // 60_000) == number] % 60_000
        after[name].view(-1)[mine] += 1.0
    mask = lottery_ticket_mask(before, after, 0.01, ["a", "b"])
    chosen = set(torch.cat([mask["a"].flatten(), mask["b"].flatten()]).nonzero()[:, 0].tolist())
    hits = len(chosen & set(places.tolist()))
    what = "1,200 of 120,000 values moved far, the others a little"
    return Planted(what=what, recall=hits / 1200, precision=hits / len(chosen))


def lottery(inputs: Inputs) -> RowResult:
    """Row 16: questions learned in English, Turkish learned from plain text, and Turkish questions by both."""
    model, tokenizer = bs.open_model("reference")
    test = {"tr": questions(inputs, "tr", slice(225, 240))}
    settings: dict[str, Any] = {
        "steps": 30,
        "learning_rate": 3e-3,
        "tokens_per_step": 512,
        "evaluate_every": 15,
        "trail_every": 1000,
    }
    ticket = LotteryTicket(share=0.03, dense_rate=1e-3)
    scores: dict[str, list[float]] = {}
    pair: list[ElementDelta] = []

    def trained(tag: str, text: list[str], dev: list[str], seed: int) -> ElementDelta:
        prepared = material(model, tokenizer, tag, text, dev, seed)
        change = adapt(prepared, "lt-sft", ticket=ticket, **settings).delta
        assert isinstance(change, ElementDelta)
        return change

    def score(*changes: ElementDelta) -> float:
        for change in changes:
            change.apply(model)
        result = bits_per_byte(model, tokenizer, test)[bs.Language("tr")]
        for change in changes:
            change.revert(model)
        return result

    english = questions(inputs, "en", slice(0, 160)), questions(inputs, "en", slice(160, 180))
    for seed in SEEDS:
        task = trained("en", *english, seed)
        turkish, estonian = (
            trained(tag, mono(inputs, tag, "train", 800, 800 * seed), mono(inputs, tag, "valid", 60), seed)
            for tag in ("tr", "et")
        )
        pair = [turkish, task]
        kinds = {"nothing": (), "task": (task,), "language": (turkish,), "both": (turkish, task)}
        kinds["wrong language and task"] = (estonian, task)
        for name, changes in kinds.items():
            scores.setdefault(name, []).append(score(*changes))
    best = all(both < min(rest) for both, *rest in zip(scores["both"], scores["task"], scores["language"], strict=True))
    better = all(a < b for a, b in zip(scores["both"], scores["wrong language and task"], strict=True))
    verdict: Verdict = "in shape" if best and better else "not"
    prepared = material(model, tokenizer, "en", *english, 0)
    return RowResult(
        witnesses=[mask_witness(model, prepared), composition_witness(model, pair)],
        planted=[planted_mask()],
        headlines=[
            Headline(
                paper="a task's change learned in one language works in another with that language's change added "
                "(Universal Dependencies, MasakhaNER, AmericasNLI)",
                ours="bits per byte of Turkish questions: "
                + "; ".join(f"{name} {span(scores[name])}" for name in ("nothing", "task", "language", "both")),
                control=f"the task with Estonian: {span(scores['wrong language and task'])}",
                model=REFERENCE,
                verdict=verdict,
            )
        ],
        absent=[
            "encoders with a task head: the layouts are of decoders",
            "tagging, NER and NLI: no such labelled text",
        ],
    )


# A language's neurons alone.
