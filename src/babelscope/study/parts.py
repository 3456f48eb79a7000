"""What the stages found, as the numbers of results.json (schema: docs/results.schema.json)."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from babelscope.artifacts import Direction, NeuronSet, Observation
from babelscope.controls import holm, more_successes_p
from babelscope.models import layout_of
from babelscope.neurons import ScriptControl, SetChecks
from babelscope.report.results import Results, Steering, SteeringSample, SweepRow
from babelscope.report.results.record_json import to_json
from babelscope.report.results.selection_record import (
    CorpusShare,
    HalfSplits,
    LabelledShare,
    NotApplicable,
    ParallelAgreement,
    ScriptRetention,
    SelectionControls,
    SetLayers,
    SharedNeurons,
    ShuffledLabelShares,
)
from babelscope.report.results.steering_record import SourcesByTargets, SteeredStream
from babelscope.report.results.study_results import SCHEMA, CorpusCard, results_of_tree
from babelscope.report.results.value_kinds import BoundedEstimate, Ends, tagged
from babelscope.runs import environment
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
from babelscope.study.job import StudyInputs

SAMPLES = 3
"""Sample answers kept for each target."""


def results_of(job: StudyInputs, observation: Observation, sets: NeuronSet, parts: Mapping[str, Any]) -> Results:
    """The whole of results.json but the seconds; parts: what the stages found, as JSON by the names of its fields."""
    directions = [f"directions/{tag}" for tag in sets.languages if (job.folder / "directions" / tag).is_dir()]
    tree = {
        "schema": SCHEMA,
        "languages": list(sets.languages),
        **parts,
        "model": model_card(job, sets),
        "corpus": to_json(corpus_results(job, observation)),
        "identification": {"method": sets.method, **sets.parameters},
        "budget": asdict(job.budget),
        "seed": job.seed,
        "files": ["neurons", "observation", *directions, "evidence.jsonl"],
        "seconds": {},
        "environment": environment(),
    }
    return results_of_tree(to_json(tree), str(job.folder))


def set_results(sets: NeuronSet, top_rate: float) -> dict[str, Any]:
    """The sets as numbers."""
    layers = SetLayers(counts=sets.layer_counts.tolist())
    return {"neurons": sets.sizes, "top_rate": top_rate, "layers": layers}


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


def control_results(checks: SetChecks, script: ScriptControl) -> dict[str, Any]:
    """Stability, sizes and controls of the selection, by the names of the fields of `Results`."""
    stability = checks.stability
    return {
        "stability": {
            tag: HalfSplits(splits.median, splits.low, splits.high, splits.chance, splits.size)
            for tag, splits in stability.items()
        },
        "stability_lead": {
            tag: BoundedEstimate(splits.lead, splits.lead_low, splits.lead_high) for tag, splits in stability.items()
        },
        "set_size_interval": {tag: Ends(*checks.bootstrap.interval[tag]) for tag in checks.sets.sizes},
        "controls": SelectionControls(
            shuffled_labels=label_shares(checks),
            corpus_size=[CorpusShare(**row._asdict()) for row in checks.corpus_size],
            parallel=parallel_agreement(checks),
            script={
                **{
                    tag: ScriptRetention(**share._asdict(), romanised_bits_per_byte=script.bits_per_byte[tag])
                    for tag, share in script.shares.items()
                },
                **{tag: NotApplicable(not_applicable=reason) for tag, reason in script.not_applicable.items()},
            },
            overlap=shared_neurons(checks),
            seed=checks.seed,
        ),
    }


def label_shares(checks: SetChecks) -> ShuffledLabelShares | None:
    """Shares of the sets under shuffled labels; None where labels were not shuffled."""
    labels, sizes = checks.labels, checks.sets.sizes
    if labels is None:
        return None
    shares = {tag: LabelledShare(share_q05=labels.share_by_language[tag], n=sizes[tag]) for tag in sizes}
    return ShuffledLabelShares(by_language=tagged(shares), set_fdr=labels.set_fdr, draws=labels.draws)


def parallel_agreement(checks: SetChecks) -> dict[str, ParallelAgreement] | None:
    """Agreement with sets from parallel text; None where the text is not parallel."""
    content = checks.content
    if content is None:
        return None
    columns = zip(content.jaccard.tolist(), content.chance.tolist(), content.lift.tolist(), strict=True)
    return {
        tag: ParallelAgreement(jaccard=jaccard, chance=chance, lift=lift)
        for tag, (jaccard, chance, lift) in zip(checks.sets.sizes, columns, strict=True)
    }


def shared_neurons(checks: SetChecks) -> SharedNeurons:
    """Neurons that pairs of languages share, against tables with the same margins and over half-splits."""
    lead, low, high = (
        [[row[end] for row in splits.pair_lead] for splits in checks.stability.values()] for end in range(3)
    )
    return SharedNeurons(
        shared=checks.overlap.shared.tolist(),
        lift_by_margins=checks.overlap.lift.tolist(),
        p_by_margins=checks.overlap.p.tolist(),
        draws=checks.overlap.draws,
        lead=lead,
        lead_low=low,
        lead_high=high,
    )


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


def corpus_results(job: StudyInputs, observation: Observation) -> CorpusCard:
    """What was read for what: tokens and documents observed by language, and what was missing."""
    return CorpusCard(
        name=observation.settings["corpus"],
        hash=observation.settings["corpus_hash"],
        tokens=tagged(observation.tokens),
        shortfall={tag: max(0, job.budget.observe_tokens - count) for tag, count in observation.tokens.items()},
        further={
            "documents": dict(zip(observation.languages, observation.documents.tolist(), strict=True)),
            "splits": {split: part.facts() for split, part in job.texts.items()},
            "same_text": job.same_text,
        },
    )
