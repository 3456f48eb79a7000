"""What it costs to make a model reason in a language: paired differences over questions, beside a control."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from babelscope.axes import Float64
from babelscope.controls import Interval
from babelscope.controls.bootstrap_draws import mean_interval
from babelscope.probes.knowledge.consistency import RESAMPLES
from babelscope.probes.priming.primed_structures import sign_flip_p
from babelscope.probes.probe_evidence import SiteEvidence
from babelscope.probes.thought.forced_thought import ThoughtCondition
from babelscope.probes.thought.language_of_steps import share_in
from babelscope.probes.thought.written_answers import ReadAnswer

Answers = Sequence[Sequence[ReadAnswer]]
"""By language and question."""
STEPS = "steps in the language that is meant"


class ForcedCost(NamedTuple):
    """What a condition changes in one measure, beside its control, over the same questions in all languages."""

    condition: str
    measure: str
    change: float
    low: float
    high: float
    questions: int
    p: float
    """Two-sided, by random signs of the questions' differences from the control; NaN without one."""
    control: str
    null: float
    """The change under the control."""


def forced_costs(
    conditions: Sequence[ThoughtCondition], answers: Mapping[str, Answers], *, draws: int, seed: int
) -> list[ForcedCost]:
    """What each condition changes that is no control; the first is the model as it is.

    A question's difference is the mean over the languages in which both answers have the value, so that questions are
    drawn for intervals.
    """
    by_name, controls = {part.name: part for part in conditions}, {part.control for part in conditions}
    costs = []
    for condition in (part for part in conditions[1:] if part.name not in controls):
        measured = question_measures(answers[condition.name], condition)
        base = question_measures(answers[conditions[0].name], condition)
        control = {}
        if condition.control in by_name:
            control = question_measures(answers[condition.control], condition)
        for name, forced in measured.items():
            change, interval, n = paired_difference(forced, base[name], seed=seed)
            null = p = math.nan
            if control:
                null = paired_difference(control[name], base[name], seed=seed)[0]
                differences = question_differences(forced, control[name])
                p = sign_flip_p(differences, draws, np.random.default_rng(seed)) if len(differences) else p
            costs.append(ForcedCost(condition.name, name, change, *interval, n, p, condition.control, null))
    return costs


def question_measures(
    answers: Answers, wanted: ThoughtCondition
) -> dict[str, Float64[np.ndarray, "language question"]]:
    """Right answers, tokens, and the share of steps in the language that a condition is for, or in the question's."""
    measures = {
        "right answers": [[float(answer.right) for answer in row] for row in answers],
        "tokens of an answer": [[float(answer.tokens) for answer in row] for row in answers],
        STEPS: [[share_in(answer.steps, wanted.target(answer.language)) for answer in row] for row in answers],
    }
    return {name: np.array(values) for name, values in measures.items()}


def question_differences(
    values: Float64[np.ndarray, "language question"], base: Float64[np.ndarray, "language question"]
) -> Float64[np.ndarray, " some"]:
    """Mean of values − base over the languages that have both, of the questions with such a language."""
    # Cell by cell: an answer without a step has no share, and means over unlike languages would differ for that alone.
    differences = values - base
    present = ~np.isnan(differences)
    counts = present.sum(axis=0)
    return np.where(present, differences, 0).sum(axis=0)[counts > 0] / counts[counts > 0]


def cost_rows(costs: Sequence[ForcedCost], language: str, *, draws: int, seed: int) -> Iterator[SiteEvidence]:
    """A row per condition and measure."""
    for cost in costs:
        yield SiteEvidence(
            claim=f"{cost.condition}: change of {cost.measure}",
            language=language,
            control=cost.control or "none",
            n=cost.questions,
            estimate=cost.change,
            low=cost.low,
            high=cost.high,
            p=cost.p,
            null=cost.null,
            draws=draws,
            seed=seed,
            note="interval over questions; p: random signs of the questions' differences from the control",
        )


def paired_difference(
    values: Float64[np.ndarray, "language question"], base: Float64[np.ndarray, "language question"], *, seed: int
) -> tuple[float, Interval, int]:
    """Mean of `question_differences`, its 95 % interval over the questions that have one, and their number."""
    differences = question_differences(values, base)
    n = len(differences)
    if not n:
        return math.nan, Interval(math.nan, math.nan), 0
    return float(differences.mean()), mean_interval(differences, RESAMPLES, np.random.default_rng(seed)), n
