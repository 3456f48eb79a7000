"""Fluency of answers: perplexity by the unsteered model, repetition and length, with intervals over prompts."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerBase

from babelscope.controls.bootstrap_draws import draw_counts
from babelscope.corpus import prefix_of
from babelscope.errors import MeasurementError
from babelscope.evaluation.content import Measured, estimate_with_interval
from babelscope.evaluation.losses import answer_losses
from babelscope.models.plain import CausalModel

IdRows = Sequence[Sequence[int]]


class Fluency(NamedTuple):
    """Answers beside others that were drawn in the same way."""

    perplexity: float
    """exp(mean nats per token) of the answers."""
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


def fluency(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    answers: IdRows,
    others: IdRows,
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
    answer_side, other_side = (_side(model, prefix, ids) for ids in (answers, others))
    paired = len(answers) == len(others)
    weights = draw_counts(len(answers), resamples, np.random.default_rng(seed))
    other_weights = weights if paired else draw_counts(len(others), resamples, np.random.default_rng(seed + 1))
    values, other_whole = (_values(side, np.ones(len(s))) for side, s in ((answer_side, answers), (other_side, others)))
    samples = [
        _ratios(_values(answer_side, w), _values(other_side, v)) for w, v in zip(weights, other_weights, strict=True)
    ]
    ratios = [
        estimate_with_interval(estimate, [row[k] for row in samples], len(answers))
        for k, estimate in enumerate(_ratios(values, other_whole))
    ]
    return Fluency(
        perplexity=math.exp(values[0]),
        perplexity_ratio=ratios[0],
        distinct4=values[1],
        distinct4_ratio=ratios[1],
        repetition=1 - values[1],
        length_ratio=ratios[2],
        empty=sum(not ids for ids in answers) / len(answers),
    )


RowStatistics = tuple[np.ndarray, np.ndarray, list[np.ndarray], np.ndarray]


def _side(model: CausalModel, prefix: Sequence[int], answers: IdRows) -> RowStatistics:
    """Nats, scored tokens, 4-grams and tokens of each answer."""
    nats, tokens = answer_losses(model, prefix, answers)
    return nats.numpy(), tokens.double().numpy(), _grams(answers), np.array([len(ids) for ids in answers])


def _grams(answers: IdRows) -> list[np.ndarray]:
    """4-grams of each answer, as numbers."""
    names: dict[tuple[int, ...], int] = {}
    return [
        np.array([names.setdefault(tuple(ids[i : i + 4]), len(names)) for i in range(len(ids) - 3)], dtype=np.int64)
        for ids in answers
    ]


def _values(side: RowStatistics, weights: np.ndarray) -> tuple[float, float, float]:
    """Nats a token, distinct 4-grams and tokens per answer, of answers drawn so often.

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


def _ratios(values: tuple[float, float, float], other_values: tuple[float, float, float]) -> tuple[float, float, float]:
    """Of perplexity, distinct 4-grams and length."""
    distinct, length = (values[k] / other_values[k] if other_values[k] else math.nan for k in (1, 2))
    return math.exp(values[0] - other_values[0]), distinct, length


def length_ratio(answers: Sequence[str], references: Sequence[str]) -> float:
    """Characters of all answers over those of all references; NaN where the references are empty."""
    total = sum(map(len, references))
    return sum(map(len, answers)) / total if total else float("nan")
