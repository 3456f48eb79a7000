"""What the steering stage found, as the numbers of results.json (schema: docs/results.schema.json)."""

import math
from collections import Counter
from collections.abc import Sequence

from babelscope.artifacts import Direction
from babelscope.controls import holm, more_successes_p
from babelscope.report.results import Steering, SteeringSample, SweepRow
from babelscope.report.results.steering_record import SourcesByTargets, SteeredStream
from babelscope.report.results.value_kinds import BoundedEstimate, Ends
from babelscope.steering.sweeps import (
    NeuronSteering,
    Score,
    SteeringStudy,
    Trial,
    macro,
    steered_tokens,
    success_by_source,
)
from babelscope.steering.sweeps.curve import CurvePoint

SAMPLES = 3
"""Sample answers kept for each target."""


def success(trial: Trial) -> dict[str, float]:
    """Share of right answers by target."""
    return {tag: score.success for tag, score in trial.scores.items()}


def steering_results(study: SteeringStudy, arithmetic: NeuronSteering, seed: int) -> Steering:
    """The steering study as numbers."""
    trials = {
        "steered": study.steered,
        "native": study.native,
        "unsteered": study.unsteered,
        "random": study.random,
        **({} if study.other_language is None else {"other_language": study.other_language}),
        "neuron_arithmetic": arithmetic.trial,
    }
    scores = study.steered.scores
    direction = next(study.directions[tag] for tag in scores)
    return Steering(
        success=success(study.steered),
        native=success(study.native),
        unsteered=success(study.unsteered),
        random=success(study.random),
        other_language=None if study.other_language is None else success(study.other_language),
        neuron_arithmetic=success(arithmetic.trial),
        neuron_arithmetic_strength=arithmetic.strength,
        neuron_arithmetic_edge=arithmetic.edge,
        neuron_arithmetic_perplexity_ratio={t: s.perplexity_ratio for t, s in arithmetic.trial.scores.items()},
        perplexity_ratio={tag: score.perplexity_ratio for tag, score in scores.items()},
        perplexity_interval={tag: Ends(score.perplexity_low, score.perplexity_high) for tag, score in scores.items()},
        distinct4_ratio={tag: score.distinct4_ratio for tag, score in scores.items()},
        layer=study.chosen.layer,
        strength=study.chosen.strength,
        edge=study.edge,
        form=direction.form,
        stream=stream_at(direction),
        receipt=steered_tokens(study.steered.answers),
        strength_unit="multiple of mean(target) − mean(prompt language), fading to 0.3 of it over eight new tokens",
        success_interval={tag: Ends(score.low, score.high) for tag, score in scores.items()},
        macro={name: BoundedEstimate(*macro(trial.answers, trial.scores)) for name, trial in trials.items()},
        geometric_mean_perplexity_ratio=geometric_mean([score.perplexity_ratio for score in scores.values()]),
        n={tag: score.n for tag, score in scores.items()},
        p=steering_p(study),
        control_n={
            name: {tag: score.n for tag, score in trial.scores.items()}
            for name, trial in steering_controls(study).items()
        },
        by_source=by_source(study.steered),
        sweep=[sweep_row(point) for point in study.points],
        not_measurable=study.not_measurable,
        samples=samples(study.steered, study.unsteered),
        seed=seed,
        temperature=0.8,
        new_tokens=32,
    )


def by_source(trial: Trial) -> SourcesByTargets:
    """Success and answers by language of the prompt and target; languages that are both come first."""
    table, targets = success_by_source(trial), list(trial.scores)
    sources = [*(tag for tag in targets if tag in table), *(tag for tag in table if tag not in targets)]
    answers = Counter((answer.prompt.source, answer.target) for answer in trial.answers)
    return SourcesByTargets(
        sources=sources,
        targets=targets,
        success=[[table[source].get(target, math.nan) for target in targets] for source in sources],
        n=[[answers[source, target] for target in targets] for source in sources],
    )


def stream_at(direction: Direction) -> SteeredStream | None:
    """What massive units and first tokens hold where a direction was made, which all directions of a layer share."""
    shares = direction.parameters.get("stream")
    return None if shares is None else SteeredStream(**shares, left_out=direction.left_out)


def steering_controls(study: SteeringStudy) -> dict[str, Trial]:
    """What steering is compared with."""
    controls = {"unsteered": study.unsteered, "random": study.random, "other_language": study.other_language}
    return {name: trial for name, trial in controls.items() if trial is not None}


def steering_p(study: SteeringStudy) -> dict[str, float]:
    """p by target that steering succeeds more often than every control, by Holm's rule over the targets.

    Fisher's exact test against each control, the largest p of them: a control's own error counts, so that ten failures
    are no proof that it never succeeds. NaN where a target lacks a control.
    """
    largest = {}
    for tag, score in study.steered.scores.items():
        beside = [trial.scores.get(tag) for trial in steering_controls(study).values()]
        each = [
            math.nan
            if control is None
            else more_successes_p(right_answers(score), score.n, right_answers(control), control.n)
            for control in beside
        ]
        largest[tag] = max(each) if not any(map(math.isnan, each)) else math.nan
    return dict(zip(largest, holm(list(largest.values())).tolist(), strict=True))


def right_answers(score: Score) -> int:
    """Answers judged right."""
    return sum(verdict.verdict == "right" for verdict in score.verdicts)


def geometric_mean(values: Sequence[float]) -> float:
    """Geometric mean of the finite values; NaN without one."""
    finite = [math.log(value) for value in values if math.isfinite(value)]
    return math.exp(sum(finite) / len(finite)) if finite else math.nan


def sweep_row(point: CurvePoint) -> SweepRow:
    """One point of the dose–response curve."""
    return SweepRow(
        layer=point.layer,
        strength=point.strength,
        success=point.macro.estimate,
        low=point.macro.low,
        high=point.macro.high,
        perplexity_ratio=point.perplexity_ratio,
        distinct4_ratio=point.distinct4_ratio,
        n=sum(score.n for score in point.scores.values()),
    )


def samples(trial: Trial, unsteered: Trial) -> list[SteeringSample]:
    """The first answers of each target, right or wrong: nothing is picked by how it came out.

    Beside each stands what came without steering; prompts that were asked without it too come first.
    """
    before = {(answer.prompt.source, answer.prompt.text): answer.text for answer in unsteered.answers}
    rows, taken = [], dict.fromkeys(trial.scores, 0)
    verdicts = {tag: iter(score.verdicts) for tag, score in trial.scores.items()}
    judged = [(answer, next(verdicts[answer.target])) for answer in trial.answers]
    for answer, verdict in sorted(judged, key=lambda pair: (pair[0].prompt.source, pair[0].prompt.text) not in before):
        if taken[answer.target] < SAMPLES:
            taken[answer.target] += 1
            rows.append(
                SteeringSample(
                    source=answer.prompt.source,
                    target=answer.target,
                    prompt=answer.prompt.text,
                    answer=answer.text,
                    unsteered=before.get((answer.prompt.source, answer.prompt.text)),
                    lines=verdict.lines,
                    recognised=verdict.verdict == "right",
                    verdict=verdict.verdict,
                    reason=verdict.reason,
                )
            )
    return rows
