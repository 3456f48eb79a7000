"""Fluency of answers: perplexity by the unsteered model, repetition and length, with intervals over prompts."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerBase

from babelscope.corpus import TokenDocument, batch_documents, prefix_of
from babelscope.errors import MeasurementError
from babelscope.evaluation.content import Measured, draw_prompts, measured
from babelscope.evaluation.losses import batch_nll
from babelscope.models import layout_of
from babelscope.models.plain import CausalModel

Ids = Sequence[Sequence[int]]


class Fluency(NamedTuple):
    """Answers beside others that were drawn in the same way."""

    perplexity: float
    """exp(mean nats a token) of the answers."""
    perplexity_ratio: Measured
    """exp(nats a token of the answers − of the others)."""
    distinct4: float
    distinct4_ratio: Measured
    repetition: float
    """Share of 4-grams that stood in the answers before: 1 − distinct4."""
    length_ratio: Measured
    """Tokens an answer, empty ones too, over the same of the others."""
    empty: float
    """Share of answers without a token."""


def answer_losses(model: CausalModel, prefix: Sequence[int], answers: Ids) -> tuple[np.ndarray, np.ndarray]:
    """Nats and scored tokens of each answer; 0 and 0 where it is shorter than two tokens.

    prefix: what begins a text; each answer stands alone after it, and its first token is not scored.
    Call it outside any steering: the model as it is judges.
    """
    layout = layout_of(model)
    documents = [
        TokenDocument(0, str(i), (*prefix, *ids), (*(False for _ in prefix), False, *(True for _ in ids[1:])), 0, 0)
        for i, ids in enumerate(answers)
        if len(ids) > 1
    ]
    nats, tokens = np.zeros(len(answers)), np.zeros(len(answers))
    for batch in batch_documents(documents, batch_tokens=4096, pad=0):
        places = [int(document.id) for document in batch.documents]
        nats[places] = batch_nll(layout, batch).sum(dim=1).numpy()
        tokens[places] = [document.n_counted for document in batch.documents]
    return nats, tokens


def fluency(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    answers: Ids,
    others: Ids,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> Fluency:
    """Perplexity, distinct 4-grams and length of answers beside others: native ones, or unsteered ones to the same
    prompts.

    Prompts are redrawn: the same ones on both sides where both have as many answers, else each side by itself.
    A ratio is NaN where a side has no token to score.
    Raises MeasurementError without answers on either side.
    """
    if not answers or not others:
        raise MeasurementError(f"{len(answers)} answers and {len(others)} others came; expected at least one each")
    prefix = prefix_of(tokenizer)
    ours, theirs = (
        (*answer_losses(model, prefix, s), _grams(s), np.array([len(i) for i in s])) for s in (answers, others)
    )
    paired = len(answers) == len(others)
    weights = draw_prompts(len(answers), resamples=resamples, seed=seed)
    other_weights = weights if paired else draw_prompts(len(others), resamples=resamples, seed=seed + 1)
    whole, other_whole = (_values(side, np.ones(len(s))) for side, s in ((ours, answers), (theirs, others)))
    samples = [_ratios(_values(ours, w), _values(theirs, v)) for w, v in zip(weights, other_weights, strict=True)]
    ratios = [
        measured(estimate, [row[k] for row in samples], len(answers))
        for k, estimate in enumerate(_ratios(whole, other_whole))
    ]
    return Fluency(
        perplexity=math.exp(whole[0]),
        perplexity_ratio=ratios[0],
        distinct4=whole[1],
        distinct4_ratio=ratios[1],
        repetition=1 - whole[1],
        length_ratio=ratios[2],
        empty=sum(not ids for ids in answers) / len(answers),
    )


Side = tuple[np.ndarray, np.ndarray, list[np.ndarray], np.ndarray]


def _grams(answers: Ids) -> list[np.ndarray]:
    """4-grams of each answer, as numbers."""
    names: dict[tuple[int, ...], int] = {}
    return [
        np.array([names.setdefault(tuple(ids[i : i + 4]), len(names)) for i in range(len(ids) - 3)], dtype=np.int64)
        for ids in answers
    ]


def _values(side: Side, weights: np.ndarray) -> tuple[float, float, float]:
    """Nats a token, distinct 4-grams and tokens an answer, of answers drawn so often.

    An answer drawn twice repeats itself, which redrawing alone would show as a loop: 4-grams are counted over the
    answers that are drawn at all.
    """
    nats, tokens, grams, lengths = side
    scored = float(weights @ tokens)
    chosen = [grams[i] for i in np.flatnonzero(weights)]
    flat = np.concatenate(chosen) if chosen else np.array([])
    distinct = len(np.unique(flat)) / len(flat) if len(flat) else math.nan
    mean = float(weights @ nats) / scored if scored else math.nan
    return mean, distinct, float(weights @ lengths) / float(weights.sum())


def _ratios(ours: tuple[float, float, float], theirs: tuple[float, float, float]) -> tuple[float, float, float]:
    """Of perplexity, distinct 4-grams and length."""
    distinct, length = (ours[k] / theirs[k] if theirs[k] else math.nan for k in (1, 2))
    return math.exp(ours[0] - theirs[0]), distinct, length


def length_ratio(answers: Sequence[str], references: Sequence[str]) -> float:
    """Characters of all answers over those of all references; NaN where the references are empty."""
    total = sum(map(len, references))
    return sum(map(len, answers)) / total if total else float("nan")
