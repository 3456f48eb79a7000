"""The stages of the main job, one after another, each kept when it is done."""

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from babelscope.artifacts import NeuronSet, Observation
from babelscope.corpus import Corpus, load_splits
from babelscope.errors import CorpusError, MeasurementError, refuse_no_number
from babelscope.evaluation import check_labels, known_languages
from babelscope.files.writing import locked, write_text
from babelscope.models import layout_of
from babelscope.models.plain import CausalModel
from babelscope.report import write_report
from babelscope.report.results import Results
from babelscope.report.results.record_json import to_json
from babelscope.report.results.study_results import FILE
from babelscope.sites import USUAL_SITES
from babelscope.steering.sweeps import ChatPrompts
from babelscope.steering.sweeps.questions import check_asked, study_prompts
from babelscope.steering.sweeps.steered_answers import ending_ids
from babelscope.steering.sweeps.steering_prompts import prompt_ids
from babelscope.study.budget import Budget
from babelscope.study.cost import Pace, measured_pace, say_costs
from babelscope.study.job import StudyInputs
from babelscope.study.number_format import open_for_study, planned_dtype
from babelscope.study.parts import results_of
from babelscope.study.plan import plan_of
from babelscope.study.stage_store import StageStore, check_free, read_kept
from babelscope.study.stages import ablate, control, identify, observe_text, steering_stage
from babelscope.study.texts import check_observed, check_shards
from babelscope.study.time_limit import fitting_budget, planned_budget


def run_study(
    model: str,
    corpus: str,
    out: str | Path,
    *,
    languages: tuple[str, ...] | None = None,
    budget: Budget | None = None,
    minutes: float | None = None,
    steering: bool = True,
    same_text: bool = False,
    parallel: bool = False,
    chat: ChatPrompts | None = None,
    check_language: bool = False,
    resume: bool = False,
    device: str = "auto",
    dtype: str = "auto",
    seed: int = 0,
    include_samples: bool = True,
    progress: bool = False,
) -> dict[str, Any]:
    """Run the main job and write results.json, report.html, the neuron set and the directions into a folder.

    model, corpus: "reference", or as for `open_model` and `load_corpus`. A corpus without splits is dealt out by
    document. same_text: allow one text for what is observed, chosen on and scored; results.json says so.
    parallel: line i is the same content in every language (see `load_corpus`).
    steering: False leaves steering out, and so all generation; languages that cannot be recognised are left out of it
    anyway. chat: prompts are messages for the model's own chat template, see `ask_as_chat`; for chat models.
    check_language: refuse text that is mostly another language than its label says.
    minutes: make the amounts of the budget smaller until the stages fit, by a few batches that are timed; a study that
    is gone on with keeps the amounts that it began with.
    resume: go on where an interrupted run of the same study stopped; of a finished one only the page is made again,
    once model and text were opened and found to be the same.
    Raises ArtifactError if the folder is taken or holds another study, CorpusError for text of one language or too
    little of one, MeasurementError and SiteError for a budget or seed that no stage can work with.
    """
    out, budget = Path(out), budget or Budget()
    check_free(out, resume=resume)
    budget.check()
    refuse_no_number({"seed": seed}, MeasurementError, whole=True)
    if not 0 <= seed < 2**63:
        raise MeasurementError(f"seed {seed} came; expected 0 to 2^63 − 1; choose another")
    with locked(out):
        store = StageStore(out)
        with store.timed("open"):
            texts = load_splits(corpus, languages, same_text=same_text, parallel=parallel)
            if len(texts["train"]) < 2:
                raise CorpusError(f"{corpus}: text of one language came; expected two or more to tell apart; add some")
            check_shards(texts["train"])
            if check_language:
                check_labels(texts["train"])
            planned = planned_dtype(store.plan) if resume else None
            language_model, tokenizer = open_for_study(
                model, texts["valid"], device=device, dtype=dtype, planned=planned
            )
            layout = layout_of(language_model)
            planned_amounts = budget.for_model(layout.n_layers, layout.width("logits"))
            if chat is not None:
                check_chat(language_model, tokenizer, chat, texts)
        steering = steering and any(tag in known_languages() for tag in texts["train"])
        job = StudyInputs(
            model=language_model,
            tokenizer=tokenizer,
            texts=texts,
            budget=planned_amounts,
            folder=out,
            seed=seed,
            progress=progress,
            same_text=same_text,
            chat=chat,
        )
        pace = None
        if minutes is not None and (begun := planned_budget(store.plan) if resume else None) is not None:
            job = job._replace(budget=begun)
        elif minutes is not None:
            with store.timed("open"):
                pace = measured_pace(job, USUAL_SITES, steering)
            job = job._replace(budget=fitting_budget(job, pace, minutes, steering=steering))
        store.check_plan(plan_of(job, steering))
        if (results := finished(out)) is not None:
            write_report(out, include_samples=include_samples)
        else:
            results = measure(job, store, steering, include_samples, pace)
        store.tidy()
        return results


def check_chat(
    model: CausalModel, tokenizer: PreTrainedTokenizerBase, chat: ChatPrompts, texts: Mapping[str, Corpus]
) -> None:
    """Raise ChatError or CorpusError, before the work, where the template or the questions will not do."""
    targets = [tag for tag in texts["train"] if tag in known_languages()]
    prompts = {name: study_prompts(texts[split], name, 1, chat) for name, split in (("dev", "valid"), ("test", "test"))}
    check_asked(prompts, targets)
    prompt_ids(tokenizer, [prompt for group in prompts.values() for prompt in group])
    ending_ids(model, tokenizer)


def measure(
    job: StudyInputs, store: StageStore, steering: bool, include_samples: bool, pace: Pace | None
) -> dict[str, Any]:
    """All stages that measure something, then the page; where progress is shown, what they will take comes first.

    A run that is gone on with does not say it again: timing it can take as long as a kill may lose.
    """
    store.expected = say_costs(job, USUAL_SITES, steering, pace) if job.progress and not store.resumed else {}
    store.stage("observe", partial(observe_text, job))
    observation = Observation.load(job.folder / "observation")
    check_observed(observation)
    chosen = store.stage("identify", lambda: to_json(identify(job, observation)))
    choice, sets = chosen.pop("choice"), NeuronSet.load(job.folder / "neurons")
    parts = {
        **chosen,
        **store.stage("control", lambda: to_json(control(job, observation, sets))),
        **store.stage("ablate", lambda: to_json({"ablation": ablate(job, observation, sets, choice)})),
    }
    if steering:
        parts |= store.stage("steer", lambda: to_json({"steering": steering_stage(job, observation, sets)}))
    results = results_of(job, observation, sets, parts)
    write_results(job.folder, replace(results, seconds=store.seconds))
    with store.timed("report"):
        write_report(job.folder, include_samples=include_samples)
    environment = {**results.environment, "peak_mib": dict(store.peak_mib)}
    seconds = {**store.seconds, "total": round(sum(store.seconds.values()), 2)}
    return write_results(job.folder, replace(results, environment=environment, seconds=seconds))


def finished(folder: Path) -> dict[str, Any] | None:
    """results.json of a study that came to its end, or None."""
    if not (folder / FILE).is_file():
        return None
    results = read_kept(folder / FILE, ("seconds",), "remove it, and --resume measures what is not kept")
    return results if "total" in results["seconds"] else None


def write_results(folder: Path, results: Results) -> dict[str, Any]:
    """Write results.json, whole or not at all; what it holds."""
    tree = to_json(results)
    write_text(folder / FILE, json.dumps(tree, indent=1, ensure_ascii=False, allow_nan=False))
    return tree
