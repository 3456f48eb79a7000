"""The stages of the main job, one after another, each kept when it is done."""

import json
import shutil
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from babelscope.artifacts import NeuronSet, Observation
from babelscope.errors import ArtifactError, CorpusError
from babelscope.evaluation import check_labels, known_languages
from babelscope.models import layout_of, open_model, origin_of
from babelscope.report import write_report
from babelscope.runs import plain, write_atomic
from babelscope.study.budget import Budget
from babelscope.study.job import Job
from babelscope.study.kept import PLAN, STAGES, Kept
from babelscope.study.parts import assemble
from babelscope.study.stages import ablate, control, identify, observe_text, steer
from babelscope.study.texts import three_splits

RESULTS, PAGE = "results.json", "report.html"


def run_study(
    model: str,
    corpus: str,
    out: str | Path,
    *,
    languages: tuple[str, ...] | None = None,
    budget: Budget | None = None,
    steering: bool = True,
    check_language: bool = False,
    resume: bool = False,
    device: str = "auto",
    dtype: str = "auto",
    seed: int = 0,
    include_samples: bool = True,
    progress: bool = False,
) -> dict[str, Any]:
    """Run the main job and write results.json, report.html, the neuron set and the directions into a folder.

    model, corpus: "reference", or as for `open_model` and `load_corpus`. A corpus without splits is split by document.
    steering: False leaves steering out, and so all generation; languages that can not be recognised are left out of it
    anyway. check_language: refuse text that is mostly another language than its label says.
    resume: go on where an interrupted run of the same study stopped; a finished one is read back.
    Raises ArtifactError if the folder is taken or holds another study, CorpusError for text of one language.
    """
    out, budget = Path(out), budget or Budget()
    if out.exists() and any(out.iterdir()) and not (resume and (out / PLAN).is_file()):
        raise ArtifactError(f"{out}: already there; expected a new folder; choose another --out or remove it")
    kept = Kept(out)
    with kept.timed("open"):
        texts = three_splits(corpus, languages)
        if len(texts["train"]) < 2:
            raise CorpusError(f"{corpus}: text of one language came; expected two or more to tell apart; add some")
        if check_language:
            check_labels(texts["train"])
        opened, tokenizer = open_model(model, device=device, dtype=dtype)
        budget = budget.for_depth(layout_of(opened).n_layers)
    steering = steering and any(tag in known_languages() for tag in texts["train"])
    origin = asdict(origin_of(opened, tokenizer))
    hashes = {split: part.hash for split, part in texts.items()}
    asked = {"budget": asdict(budget), "seed": seed, "steering": steering}
    kept.check_plan({"model": {**origin, "model": ""}, "text": hashes, "languages": list(texts["train"]), **asked})
    if (out / RESULTS).is_file() and (out / PAGE).is_file():
        return json.loads((out / RESULTS).read_text(encoding="utf-8"))
    return measure(Job(opened, tokenizer, texts, budget, out, seed, progress), kept, steering, include_samples)


def measure(job: Job, kept: Kept, steering: bool, include_samples: bool) -> dict[str, Any]:
    """All stages that measure something, then the page."""
    kept.stage("observe", partial(observe_text, job))
    observation = Observation.load(job.folder / "observation")
    chosen = kept.stage("identify", partial(identify, job, observation))
    choice, sets = chosen.pop("choice"), NeuronSet.load(job.folder / "neurons")
    parts = {
        **chosen,
        **kept.stage("control", partial(control, job, observation, sets)),
        **kept.stage("ablate", lambda: {"ablation": ablate(job, observation, sets, choice)}),
    }
    if steering:
        parts |= kept.stage("steer", lambda: {"steering": steer(job, observation, sets)})
    results = plain(assemble(job, observation, sets, parts))
    results["seconds"] = dict(kept.seconds)
    write_results(job.folder, results)
    with kept.timed("report"):
        write_report(job.folder, include_samples=include_samples)
    results["environment"]["peak_mib"] = dict(kept.peak_mib)
    results["seconds"] = {**kept.seconds, "total": round(sum(kept.seconds.values()), 2)}
    write_results(job.folder, results)
    shutil.rmtree(job.folder / STAGES)
    return results


def write_results(folder: Path, results: dict[str, Any]) -> None:
    """results.json, whole or not at all."""
    write_atomic(folder / RESULTS, json.dumps(results, indent=1, ensure_ascii=False, allow_nan=False))
