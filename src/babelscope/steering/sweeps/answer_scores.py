"""The score of answers: right language, fluency against the model's own text, variety."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerBase

from babelscope.axes import Float64, Int64, Tensor
from babelscope.controls import percentile_interval, wilson_interval
from babelscope.controls.bootstrap_draws import draw_counts
from babelscope.controls.intervals import Interval
from babelscope.corpus import prefix_of
from babelscope.evaluation import Recognition, answer_losses, distinct_n, judge_answers
from babelscope.languages import Language
from babelscope.models.plain import CausalModel
from babelscope.steering.sweeps.steered_answers import Answer


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
    perplexity_low: float
    perplexity_high: float
    """Its 95 % interval over answers on both sides (`perplexity_interval`)."""
    distinct4_ratio: float
    """Distinct 4-grams over all, divided by the same of native answers; NaN without native."""
    verdicts: tuple[Recognition, ...]


def by_target(answers: Sequence[Answer]) -> dict[Language, list[Answer]]:
    """Answers grouped by target, in the order met."""
    groups: dict[Language, list[Answer]] = {}
    for answer in answers:
        groups.setdefault(answer.target, []).append(answer)
    return groups


class AnswerFluency(NamedTuple):
    """What the fluency of the answers meant for one target is told by."""

    nats: Float64[Tensor, " answer"]
    tokens: Int64[Tensor, " answer"]
    """Scored ones: all but the first of each answer."""
    distinct4: float


def fluency_by_target(
    model: CausalModel, tokenizer: PreTrainedTokenizerBase, answers: Sequence[Answer]
) -> dict[Language, AnswerFluency]:
    """Loss of the model as it is on answers, read together, and their variety. Call it outside any steering."""
    groups = by_target(answers)
    ids = {target: [answer.ids for answer in group] for target, group in groups.items()}
    nats, tokens = answer_losses(model, prefix_of(tokenizer), [row for rows in ids.values() for row in rows])
    sizes = [len(rows) for rows in ids.values()]
    parts = zip(groups, nats.split(sizes), tokens.split(sizes), strict=True)
    return {target: AnswerFluency(part, counts, distinct_n(ids[target])) for target, part, counts in parts}


def score_answers(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    answers: Sequence[Answer],
    native: Sequence[Answer] | Mapping[Language, AnswerFluency] = (),
) -> dict[Language, Score]:
    """Score answers by target; `native` are the model's own continuations of target-language prompts.

    native: the answers, or, to score many against them, their `fluency_by_target`.
    Call it outside any steering: fluency is judged by the model as it is.
    """
    reference = native if isinstance(native, Mapping) else fluency_by_target(model, tokenizer, native)
    compared = [answer for answer in answers if answer.target in reference]
    fluency, scores = fluency_by_target(model, tokenizer, compared), {}
    for target, group in by_target(answers).items():
        verdicts = judge_answers([answer.text for answer in group], [target] * len(group))
        right = sum(verdict.verdict == "right" for verdict in verdicts)
        low, high = wilson_interval(right, len(group))
        ratio = distinct = math.nan
        interval = Interval(math.nan, math.nan)
        if target in reference:
            answered, ceiling = fluency[target], reference[target]
            ratio = math.exp(nats_a_token(*answered[:2]) - nats_a_token(*ceiling[:2]))
            interval = perplexity_interval(*answered[:2], *ceiling[:2])
            distinct = answered.distinct4 / ceiling.distinct4
        scores[target] = Score(len(group), right / len(group), low, high, ratio, *interval, distinct, tuple(verdicts))
    return scores


def nats_a_token(nats: Float64[Tensor, " answer"], tokens: Int64[Tensor, " answer"]) -> float:
    """Mean nats a token over all answers; NaN without a scored token."""
    return float(nats.sum()) / int(tokens.sum()) if int(tokens.sum()) else math.nan


def perplexity_interval(
    nats: Float64[Tensor, " answer"],
    tokens: Int64[Tensor, " answer"],
    native_nats: Float64[Tensor, " native"],
    native_tokens: Int64[Tensor, " native"],
    level: float = 0.95,
) -> Interval:
    """Interval of exp(nats a token − native nats a token), where answers are the independent units on both sides.

    Nats a token are a ratio of sums over answers, whose variance is that of its linear form,
    n/(n − 1) Σ (nats_i − r tokens_i)² / (Σ tokens)²; the difference is taken with Student's t by Welch's degrees of
    freedom. NaN where a side has fewer than two answers with a scored token.
    """
    from scipy.stats import t

    means, variances, sizes = [], [], []
    for side_nats, side_tokens in ((nats, tokens), (native_nats, native_tokens)):
        scored = side_tokens > 0
        n = int(scored.sum())
        if n < 2:
            return Interval(math.nan, math.nan)
        mean = nats_a_token(side_nats, side_tokens)
        left = side_nats[scored] - mean * side_tokens[scored]
        means.append(mean)
        variances.append(float(left.square().sum()) * n / (n - 1) / float(side_tokens.sum()) ** 2)
        sizes.append(n)
    total = sum(variances)
    spread = sum(part**2 / (n - 1) for part, n in zip(variances, sizes, strict=True))
    freedom = total**2 / spread if spread else float(sum(sizes) - 2)
    arm = float(t.ppf((1 + level) / 2, freedom)) * math.sqrt(total)
    difference = means[0] - means[1]
    return Interval(math.exp(difference - arm), math.exp(difference + arm))


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
    draws = draw_counts(len(ids), resamples, np.random.default_rng(seed))
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
