"""What rows 14 and 34 share: runs of training with an alignment objective."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

import babelscope as bs
from babelscope.adaptation import Material, adapt
from babelscope.adaptation.alignment_account import AlignmentAccount, alignment_account
from babelscope.adaptation.language_shift import LanguageShift
from babelscope.corpus import Corpus
from babelscope.subnetworks import (
    Contrast,
    ContrastSteps,
    ParallelPairs,
)
from rows.training_text import SEEDS

LANGUAGES = ["en", "fi", "hi"]
ONCE = ("task only", "first layer", "last layer")
"""Ways of training that are run with one seed."""


def account(model: Any, tokenizer: Any, text: Corpus) -> AlignmentAccount:
    return alignment_account(model, tokenizer, text, against="en")


class AlignmentMaterial(NamedTuple):
    """What every run of alignment begins with."""

    model: Any
    tokenizer: Any
    texts: dict[str, Corpus]
    pairs: ParallelPairs
    start: AlignmentAccount
    """Of the untouched model on test sentences."""
    layer: int
    """Of the best retrieval on valid text."""


@cache
def alignment_material() -> AlignmentMaterial:
    model, tokenizer = bs.open_model("reference")
    texts = {split: bs.load_corpus("reference", LANGUAGES, split=split) for split in ("train", "valid", "test")}
    right = ParallelPairs.of(tokenizer, texts["train"], against="en", max_length=64)
    start, valid = (account(model, tokenizer, texts[split]) for split in ("test", "valid"))
    return AlignmentMaterial(model, tokenizer, texts, right, start, valid.best_layer())


@cache
def alignment_run(kind: str, seed: int) -> dict[str, Any]:
    """One way of training by its name: measures on test sentences before and after, each with what acts there."""
    model, tokenizer, texts, right, start, layer = alignment_material()
    last = bs.layout_of(model).n_layers - 1
    kinds: dict[str, Callable[[], ContrastSteps | None]] = {
        "shuffled pairs": lambda: steps_of(right.shuffled(seed), layer, seed),
        "task only": lambda: None,
        "first layer": lambda: steps_of(right, 0, seed),
        "last layer": lambda: steps_of(right, last, seed),
    }
    shift = stream_shift().get(kind)
    prepared = Material.prepare(
        model, tokenizer, language="fi", documents=texts["train"]["fi"], dev=texts["valid"]["fi"],
        test=texts["test"].head(40), max_length=64, seed=seed,
    )  # fmt: skip
    result = adapt(
        prepared, "lora", rank=8, steps=40, learning_rate=3e-3, tokens_per_step=512, evaluate_every=40,
        trail_every=1000, pairs=kinds.get(kind, lambda: steps_of(right, layer, seed))(), translations=texts["test"],
        shift=shift, seed=seed,
    )  # fmt: skip
    assert result.aligned_after is not None
    bits = (result.before, result.after)
    return {"before": start, "after": result.aligned_after, "layer": layer, "bits": bits}


@cache
def stream_shift() -> dict[str, LanguageShift]:
    """The shift around the aligned layer, and its control; neither for other ways of training."""
    model, tokenizer, texts, _, _, layer = alignment_material()
    shift = LanguageShift.of(model, tokenizer, texts["train"], against="en", layers=(layer - 1, layer + 1))
    return {"shift": shift, "crossed shift": shift.crossed()}


def alignment_runs(*kinds: str) -> dict[str, list[dict[str, Any]]]:
    """Every way of training by name, a run a seed, or one where only their order matters."""
    return {kind: [alignment_run(kind, seed) for seed in (SEEDS[:1] if kind in ONCE else SEEDS)] for kind in kinds}


def steps_of(pairs: ParallelPairs, layer: int, seed: int) -> ContrastSteps:
    return ContrastSteps(Contrast(layer), replace(pairs, seed=seed))


def gains_at(run: Mapping[str, Any], measure: str) -> float:
    """Rise of a measure at its best layer, mean over languages."""
    return float(run["after"].mean(measure).max()) - float(run["before"].mean(measure).max())
