"""What the stages found, as the numbers of results.json (schema: docs/results.schema.json)."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from babelscope.artifacts import Direction, NeuronSet, Observation
from babelscope.controls import holm, more_successes_p
from babelscope.identification import ScriptControl, SetChecks
from babelscope.models import layout_of
from babelscope.runs import environment
from babelscope.study.job import StudyInputs
from babelscope.sweeps import (
    NeuronSteering,
    Score,
    SteeringStudy,
    Trial,
    macro,
    steered_tokens,
    success_by_source,
)

SCHEMA = "babelscope.results/1"
SAMPLES = 3
"""Sample answers kept for each target."""


ORDER = (
    "neurons",
    "top_rate",
    "stability",
    "stability_lead",
    "layers",
    "set_size_interval",
    "ablation",
    "steering",
    "controls",
)
"""Parts that the stages found, as the file has them."""


def results_of(job: StudyInputs, observation: Observation, sets: NeuronSet, parts: Mapping[str, Any]) -> dict[str, Any]:
    """The whole of results.json but the seconds."""
    directions = [f"directions/{tag}" for tag in sets.languages if (job.folder / "directions" / tag).is_dir()]
    return {
        "schema": SCHEMA,
        "languages": list(sets.languages),
        **{key: parts[key] for key in ORDER if key in parts},
        "model": model_card(job, sets),
        "corpus": {**corpus_results(observation, job.budget.observe_tokens), **split_results(job)},
        "identification": {"method": sets.method, **sets.parameters},
        "budget": asdict(job.budget),
        "seed": job.seed,
        "files": ["neurons", "observation", *directions, "evidence.jsonl"],
        "seconds": {},
        "environment": environment(),
    }


def set_results(sets: NeuronSet, top_rate: float) -> dict[str, Any]:
    """The sets as numbers."""
    return {"neurons": sets.sizes, "top_rate": top_rate, "layers": {"counts": sets.layer_counts.tolist()}}


def stability_row(checks: SetChecks, tag: str) -> list[float | int]:
    """[median, low, high, chance, size] of one language."""
    found = checks.stability[tag]  # pyright: ignore[reportArgumentType]
    return [found.median, found.low, found.high, found.chance, found.size]


def success(trial: Trial) -> dict[str, float]:
    """Share of right answers by target."""
    return {tag: score.success for tag, score in trial.scores.items()}


def steering_results(study: SteeringStudy, arithmetic: NeuronSteering, seed: int) -> dict[str, Any]:
    """The steering study as numbers."""
    trials = {
        "steered": study.steered,
        "native": study.native,
        "unsteered": study.unsteered,
        "random": study.random,
        **({} if study.other_language is None else {"other_language": study.other_language}),
        "neuron_arithmetic": arithmetic.trial,
    }
    scores, table = study.steered.scores, success_by_source(study.steered)
    answers = Counter((answer.prompt.source, answer.target) for answer in study.steered.answers)
    targets = list(scores)
    sources = [*(tag for tag in targets if tag in table), *(tag for tag in table if tag not in targets)]
    return {
        "success": success(study.steered),
        "native": success(study.native),
        "unsteered": success(study.unsteered),
        "random": success(study.random),
        **({} if study.other_language is None else {"other_language": success(study.other_language)}),
        "neuron_arithmetic": success(arithmetic.trial),
        "neuron_arithmetic_strength": arithmetic.strength,
        "neuron_arithmetic_edge": list(arithmetic.edge),
        "neuron_arithmetic_perplexity_ratio": {t: s.perplexity_ratio for t, s in arithmetic.trial.scores.items()},
        "perplexity_ratio": {tag: score.perplexity_ratio for tag, score in scores.items()},
        "perplexity_interval": {tag: [score.perplexity_low, score.perplexity_high] for tag, score in scores.items()},
        "distinct4_ratio": {tag: score.distinct4_ratio for tag, score in scores.items()},
        "layer": study.chosen.layer,
        "strength": study.chosen.strength,
        "edge": list(study.edge),
        "form": study.directions[targets[0]].form,
        **stream_at(study.directions[targets[0]]),
        "receipt": steered_tokens(study.steered.answers),
        "strength_unit": "multiple of mean(target) − mean(prompt language), fading to 0.3 of it over eight new tokens",
        "success_interval": {tag: [score.low, score.high] for tag, score in scores.items()},
        "macro": {name: list(macro(trial.answers, trial.scores)) for name, trial in trials.items()},
        "geometric_mean_perplexity_ratio": geometric_mean([score.perplexity_ratio for score in scores.values()]),
        "n": {tag: score.n for tag, score in scores.items()},
        "p": steering_p(study),
        "control_n": {
            name: {tag: score.n for tag, score in trial.scores.items()}
            for name, trial in steering_controls(study).items()
        },
        "by_source": {
            "sources": sources,
            "targets": targets,
            "success": [[table[source].get(target, math.nan) for target in targets] for source in sources],
            "n": [[answers[source, target] for target in targets] for source in sources],
        },
        "sweep": [sweep_row(point) for point in study.points],
        "not_measurable": list(study.not_measurable),
        "samples": samples(study.steered, study.unsteered),
        "seed": seed,
        "temperature": 0.8,
        "new_tokens": 32,
    }


def stream_at(direction: Direction) -> dict[str, Any]:
    """What massive units and first tokens hold where a direction was made, which all directions of a layer share."""
    shares = direction.parameters.get("stream")
    return {} if shares is None else {"stream": {**shares, "left_out": list(direction.left_out)}}


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


def sweep_row(point: Any) -> dict[str, float | int]:
    """One point of the dose–response curve."""
    return {
        "layer": point.layer,
        "strength": point.strength,
        "success": point.macro.estimate,
        "low": point.macro.low,
        "high": point.macro.high,
        "perplexity_ratio": point.perplexity_ratio,
        "distinct4_ratio": point.distinct4_ratio,
        "n": sum(score.n for score in point.scores.values()),
    }


def samples(trial: Trial, unsteered: Trial) -> list[dict[str, Any]]:
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
                {
                    "source": answer.prompt.source,
                    "target": answer.target,
                    "prompt": answer.prompt.text,
                    "answer": answer.text,
                    "unsteered": before.get((answer.prompt.source, answer.prompt.text)),
                    "lines": [list(line) for line in verdict.lines],
                    "recognised": verdict.verdict == "right",
                    "verdict": verdict.verdict,
                    "reason": verdict.reason,
                }
            )
    return rows


def control_results(checks: SetChecks, script: ScriptControl) -> dict[str, Any]:
    """Stability, sizes and controls of the selection as numbers."""
    labels, content, shared = checks.labels, checks.content, checks.overlap
    sizes = checks.sets.sizes
    return {
        "stability": {tag: stability_row(checks, tag) for tag in sizes},
        "stability_lead": {
            tag: [found.lead, found.lead_low, found.lead_high] for tag, found in checks.stability.items()
        },
        "set_size_interval": {tag: list(checks.bootstrap.interval[tag]) for tag in sizes},
        "controls": {
            "shuffled_labels": None
            if labels is None
            else {
                **{tag: {"share_q05": labels.share_by_language[tag], "n": sizes[tag]} for tag in sizes},
                "set_fdr": labels.set_fdr,
                "draws": labels.draws,
            },
            "corpus_size": [row._asdict() for row in checks.corpus_size],
            "parallel": None
            if content is None
            else {
                tag: {
                    "jaccard": float(content.jaccard[k]),
                    "chance": float(content.chance[k]),
                    "lift": float(content.lift[k]),
                }
                for k, tag in enumerate(sizes)
            },
            "script": {
                **{
                    tag: {**share._asdict(), "romanised_bits_per_byte": script.bits_per_byte[tag]}
                    for tag, share in script.shares.items()
                },
                **{tag: {"not_applicable": reason} for tag, reason in script.not_applicable.items()},
            },
            "overlap": {
                "shared": shared.shared.tolist(),
                "lift_by_margins": shared.lift.tolist(),
                "p_by_margins": shared.p.tolist(),
                "draws": shared.draws,
                **{
                    name: [[row[at] for row in found.pair_lead] for found in checks.stability.values()]
                    for at, name in enumerate(("lead", "lead_low", "lead_high"))
                },
            },
            "seed": checks.seed,
        },
    }


def model_card(job: StudyInputs, sets: NeuronSet) -> dict[str, Any]:
    """What is known of the model."""
    layout = layout_of(job.model)
    return {
        **sets.origin.names,
        "architecture": layout.model.config.model_type,
        "layers": layout.n_layers,
        "hidden": layout.d_hidden,
        "neurons_per_layer": sets.n_neurons,
        "vocabulary": layout.width("logits"),
        "parameters": job.model.num_parameters(),
        "dtype": str(job.model.dtype),
        "device": str(job.model.device),
    }


def split_results(job: StudyInputs) -> dict[str, Any]:
    """What was read for what, and whether one text for several was asked for."""
    facts = {split: part.facts() for split, part in job.texts.items()}
    return {"splits": facts, "same_text": job.same_text}


def corpus_results(observation: Observation, limit: int) -> dict[str, Any]:
    """Tokens observed by language, and what was missing."""
    return {
        "name": observation.settings["corpus"],
        "hash": observation.settings["corpus_hash"],
        "tokens": observation.tokens,
        "shortfall": {tag: max(0, limit - count) for tag, count in observation.tokens.items()},
        "documents": dict(zip(observation.languages, observation.documents.tolist(), strict=True)),
    }
