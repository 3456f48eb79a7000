"""The score of answers: right language, fluency against the model's own text, variety."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerBase

from babelscope.controls import percentile_interval, wilson_interval
from babelscope.corpus import prefix_of
from babelscope.evaluation import Recognition, answer_nll, distinct_n, judge_answers
from babelscope.languages import Language
from babelscope.models.plain import CausalModel
from babelscope.sweeps.steered_answers import Answer


class Score(NamedTuple):
    """Score of the answers meant for one target."""

    n: int
    """Answers, failures of every kind among them."""
    success: float
    """Share judged right; empty, short, broken and mixed answers are failures."""
    low: float
    high: float
    """95 % Wilson interval of success."""
    perplexity_ratio: float
    """exp(nats a token of these answers − the same of native ones), by the unsteered model; NaN without native."""
    distinct4_ratio: float
    """Distinct 4-grams over all, divided by the same of native answers; NaN without native."""
    verdicts: tuple[Recognition, ...]


def by_target(answers: Sequence[Answer]) -> dict[Language, list[Answer]]:
    """Answers grouped by target, in the order met."""
    groups: dict[Language, list[Answer]] = {}
    for answer in answers:
        groups.setdefault(answer.target, []).append(answer)
    return groups


def score_answers(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    answers: Sequence[Answer],
    native: Sequence[Answer] = (),
) -> dict[Language, Score]:
    """Score answers by target; `native` are the model's own continuations of target-language prompts.

    Call it outside any steering: fluency is judged by the model as it is.
    """
    reference, scores = by_target(native), {}
    for target, group in by_target(answers).items():
        verdicts = judge_answers([answer.text for answer in group], [target] * len(group))
        right = sum(verdict.verdict == "right" for verdict in verdicts)
        low, high = wilson_interval(right, len(group))
        own = reference.get(target, [])
        ratio = distinct = float("nan")
        if own:
            ratio = math.exp(nats_a_token(model, tokenizer, group) - nats_a_token(model, tokenizer, own))
            distinct = distinct_n([a.ids for a in group]) / distinct_n([a.ids for a in own])
        scores[target] = Score(len(group), right / len(group), low, high, ratio, distinct, tuple(verdicts))
    return scores


def nats_a_token(model: CausalModel, tokenizer: PreTrainedTokenizerBase, answers: Sequence[Answer]) -> float:
    """Mean nats a token of answers by the model as it is; NaN without a scored token."""
    nats, tokens = answer_nll(model, prefix_of(tokenizer), [answer.ids for answer in answers])
    return nats / tokens if tokens else float("nan")


class Macro(NamedTuple):
    """Mean over targets with its 95 % interval."""

    estimate: float
    low: float
    high: float


def macro(
    answers: Sequence[Answer], scores: Mapping[Language, Score], *, resamples: int = 1000, seed: int = 0
) -> Macro:
    """Macro success; the bootstrap draws prompt ids, for the same prompts serve every target."""
    groups = by_target(answers)
    ids = sorted({answer.prompt.id for answer in answers})
    place = {prompt: index for index, prompt in enumerate(ids)}
    draws = np.random.default_rng(seed).multinomial(len(ids), np.full(len(ids), 1 / len(ids)), size=resamples)
    means = []
    for target, group in groups.items():
        right, total = np.zeros(len(ids)), np.zeros(len(ids))
        for answer, verdict in zip(group, scores[target].verdicts, strict=True):
            right[place[answer.prompt.id]] += verdict.verdict == "right"
            total[place[answer.prompt.id]] += 1
        with np.errstate(invalid="ignore"):
            means.append((draws @ right) / (draws @ total))
    low, high = percentile_interval(np.nanmean(np.stack(means), axis=0))
    return Macro(float(np.mean([scores[target].success for target in groups])), low, high)
