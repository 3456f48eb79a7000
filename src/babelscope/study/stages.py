"""The stages of the main job: each takes artifacts, writes its own, and gives its part of results.json."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from babelscope.ablation import AblationTable, ScoredText, ablation_matrix, choose_top_rate, part_tables, set_parts
from babelscope.artifacts import NeuronSet, Observation
from babelscope.controls import write_evidence
from babelscope.corpus import ROMANISABLE, romanise
from babelscope.files.writing import discard, new_folder
from babelscope.languages import Language
from babelscope.neurons import ScriptControl, check_sets, evidence_rows, neuron_rule, romanised_control, scoring_rules
from babelscope.recording import observe
from babelscope.report.results import Ablation, Steering
from babelscope.report.results.steering_record import ChatForm
from babelscope.sites import USUAL_SITES
from babelscope.steering.sweeps import Decoding, neuron_steering_study, overridden_settings, steering_study
from babelscope.study.ablation_numbers import ablation_results, part_results
from babelscope.study.job import StudyInputs
from babelscope.study.parts import control_results, set_results
from babelscope.study.steering_parts import steering_results
from babelscope.study.texts import SHARDS

METHODS = scoring_rules()
"""Rules tried, all that contrast languages; rule and top_rate are chosen on the validation split."""


def observe_text(job: StudyInputs) -> dict[str, Any]:
    """One pass over the training split, into `observation`; an interrupted one goes on from its last checkpoint."""
    saved, checkpoint = job.folder / "observation", job.folder / "observation.checkpoint"
    if not (saved / "config.json").is_file():
        observation = observe(
            job.model,
            job.tokenizer,
            job.texts["train"],
            sites=USUAL_SITES,
            tokens_per_language=job.budget.observe_tokens,
            shards=SHARDS,
            checkpoint=checkpoint,
            progress=job.progress,
        )
        observation.save(saved)
    discard(checkpoint)
    return {}


def identify(job: StudyInputs, observation: Observation) -> dict[str, Any]:
    """Method and rate by the validation split; the sets go to `neurons`."""
    choice = choose_top_rate(
        job.model,
        job.tokenizer,
        {name: partial(select, observation, name) for name in METHODS},
        job.texts["valid"],
        max_tokens=job.budget.choose_tokens,
        progress=job.progress,
    )
    sets = select(observation, choice.method, choice.top_rate)
    discard(job.folder / "neurons")
    sets.save(job.folder / "neurons")
    return {**set_results(sets, choice.top_rate), "choice": [dict(row) for row in choice.rows]}


def select(observation: Observation, method: str, top_rate: float) -> NeuronSet:
    """The sets of one method at one rate."""
    return neuron_rule(method, top_rate=top_rate).choose(observation)


def control(job: StudyInputs, observation: Observation, sets: NeuronSet) -> dict[str, Any]:
    """What can be said of the sets without switching them off; its rows go to evidence.jsonl."""
    parallel = job.texts["train"].parallel
    checks = check_sets(observation, sets, parallel=parallel, draws=job.budget.resamples, seed=job.seed)
    write_evidence(evidence_rows(checks), job.folder / "evidence.jsonl")
    return control_results(checks, script_control(job, observation, sets))


def script_control(job: StudyInputs, observation: Observation, sets: NeuronSet) -> ScriptControl:
    """The romanised control, or why there is none."""
    valid, why = job.texts["valid"].head(job.budget.script_documents), None
    if observation[sets.at].routed is not None:
        why = "the tokens routed to an expert are not kept by shard"
    elif "en" not in valid:
        why = "no English text, which is its floor"
    elif not any(tag.script in ROMANISABLE for tag in sets.languages):
        why = "no language with a romanisation"
    if why is not None:
        return ScriptControl({}, {}, dict.fromkeys(sets.languages, why))
    return romanised_control(job.model, job.tokenizer, sets, valid, seed=job.seed)


def ablate(job: StudyInputs, observation: Observation, sets: NeuronSet, choice: Sequence[dict[str, Any]]) -> Ablation:
    """Every set switched off on the test split, to zero beside both controls and to its mean; then its parts."""
    test = partial(ScoredText.prepare, job.model, job.tokenizer, job.texts["test"])
    switch_off = partial(
        ablation_matrix,
        job.model,
        job.tokenizer,
        sets,
        test(max_tokens=job.budget.ablate_tokens),
        draws=job.budget.draws,
        observation=observation,
        seed=job.seed,
        progress=job.progress,
    )
    ablation = ablation_results(switch_off(to="zero"), switch_off(to="mean", controls=()), choice)
    if not job.budget.part_tokens:
        return ablation
    part_text = test(max_tokens=job.budget.part_tokens)
    tables = part_tables(
        job.model, job.tokenizer, sets, part_text, draws=job.budget.draws, seed=job.seed, progress=job.progress
    )
    return replace(ablation, parts=part_results(tables, romanised_harm(job, sets)))


def romanised_harm(job: StudyInputs, sets: NeuronSet) -> dict[str, dict[Language, AblationTable]]:
    """Whole sets, and each part of them, switched off on the own language's test text in Latin letters."""
    native = [tag for tag in sets.languages if tag.script in ROMANISABLE]
    texts = {
        tag: ScoredText.prepare(
            job.model,
            job.tokenizer,
            romanise(job.texts["test"].only([tag])),
            max_tokens=job.budget.part_tokens,
        )
        for tag in native
    }
    return {
        name: {
            tag: ablation_matrix(job.model, job.tokenizer, part[tag], text, controls=(), seed=job.seed)
            for tag, text in texts.items()
            if part.sizes[tag]
        }
        for name, part in {"whole": sets, **set_parts(sets)}.items()
    }


def steering_stage(job: StudyInputs, observation: Observation, sets: NeuronSet) -> Steering:
    """Directions and neuron arithmetic, chosen on the validation split, scored on the test split."""
    budget, decoding = job.budget, Decoding(seed=job.seed)
    study = steering_study(
        job.model,
        job.tokenizer,
        observation,
        dev=job.texts["valid"],
        test=job.texts["test"],
        targets=tuple(job.texts["train"]),
        layers=budget.layers,
        strengths=budget.strengths,
        dev_prompts=budget.dev_prompts,
        test_prompts=budget.test_prompts,
        random_prompts=budget.random_prompts,
        decoding=decoding,
        chat=job.chat,
        same_text=job.same_text,
        progress=job.progress,
    )
    arithmetic = neuron_steering_study(
        job.model, job.tokenizer, sets, observation, study, dev=job.texts["valid"], decoding=decoding, chat=job.chat
    )
    discard(job.folder / "directions")
    with new_folder(job.folder / "directions") as folder:
        for tag, direction in study.directions.items():
            direction.save(folder / tag)
    return replace(
        steering_results(study, arithmetic, job.seed),
        overridden_settings=overridden_settings(job.model, decoding),
        chat=None if job.chat is None else ChatForm(**job.chat.card()),
    )
