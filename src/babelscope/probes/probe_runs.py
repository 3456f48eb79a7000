"""Run one probe, or several with their results on disk."""

import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from babelscope.controls import write_evidence
from babelscope.corpus import WHOLE, Corpus, Texts, load_corpus
from babelscope.errors import LanguageError, MeasurementError, PrerequisiteError, ToolkitError, refuse_one_text
from babelscope.figures import write_figure
from babelscope.files.writing import discard, new_folder
from babelscope.languages import Language
from babelscope.models.modes import refuse_steered
from babelscope.probes.catalogue import PROBES
from babelscope.probes.figure_captions import caption_of
from babelscope.probes.geometry.sentences import parallel_corpus
from babelscope.probes.probe_job import Findings, ProbeJob
from babelscope.probes.shard_sums import check_english


class ProbeRun(NamedTuple):
    """What several probes gave, by the name of each."""

    rows: dict[str, int]
    """Rows of evidence written."""
    seconds: dict[str, float]
    """Wall time."""
    processor_seconds: dict[str, float]
    """Processor time of all threads."""
    left_out: dict[str, str]
    """Why a probe was left out."""


def probe_findings(name: str, job: ProbeJob) -> Findings:
    """One probe on a model and text: rows of evidence and figures.

    name: one of `PROBES`; raises PrerequisiteError for another, and what the probe raises where the model or the text
    does not allow it.
    """
    if name not in PROBES:
        raise PrerequisiteError(f"probe {name!r} came; expected one of {', '.join(PROBES)}; correct it")
    entry = PROBES[name]
    check_probe_texts(name, job.texts, job.against)
    return getattr(import_module(f"babelscope.probes.{entry.module}"), entry.function)(job)


def check_probe_texts(name: str, texts: Texts, against: str) -> None:
    """Raise CorpusError or LanguageError where text lacks what a probe needs; no model has to be opened to tell.

    name: one of `PROBES`. texts: what is measured. against: the language that others are compared with.
    """
    needs = PROBES[name].needs
    if "against" in needs:
        check_english(tuple(map(Language.parse, texts)), against)
    if "parallel" in needs:
        parallel_corpus(texts)


Stages = Callable[[str, Callable[[], Mapping[str, Any]]], Mapping[str, Any]]
"""What a stage of this name found: now, or in an interrupted run, as JSON."""


def run_probes(
    names: Iterable[str],
    job: ProbeJob,
    out: Path,
    *,
    leave_out: bool = False,
    stage: Stages = lambda _, find: find(),
) -> ProbeRun:
    """Several probes, each written to a folder of `out` that has its name.

    leave_out: a probe that the model or the text does not allow is left out, and the result has the reason; otherwise
    its error is raised. stage: keeps what an interrupted run has done, as `StageStore.stage` does.
    """
    refuse_one_text(names, "probes", MeasurementError)
    refuse_steered(job.model)
    run = ProbeRun({}, {}, {}, {})
    for name in names:
        findings = stage(name, partial(_write_probe, name, job, out, leave_out))
        if "left_out" in findings:
            run.left_out[name] = findings["left_out"]
        else:
            run.rows[name], run.seconds[name] = findings["rows"], findings["seconds"]
            run.processor_seconds[name] = findings["processor_seconds"]
    return run


def _write_probe(name: str, job: ProbeJob, out: Path, leave_out: bool) -> dict[str, Any]:
    """Run one probe into its folder; its rows and seconds, or why it is left out."""
    started, busy = time.perf_counter(), time.process_time()
    try:
        findings = probe_findings(name, job)
    except ToolkitError as err:
        if not leave_out:
            raise
        return {"left_out": str(err)}
    discard(out / name)  # of a run that was killed before it could say that this probe is done
    with new_folder(out / name) as folder:
        write_findings(name, findings, folder)
    return {
        "rows": len(findings.rows),
        "seconds": round(time.perf_counter() - started, 1),
        "processor_seconds": round(time.process_time() - busy, 1),
    }


def write_findings(probe: str, findings: Findings, folder: Path) -> None:
    """Rows, and a page per figure."""
    write_evidence(findings.rows, folder / "results.jsonl")
    for name, figure in findings.figures.items():
        write_figure(figure, folder / f"{name}.html", caption_of(probe, name))


def measured_and_other(
    corpus: str, languages: Iterable[str], split: str, other_split: str, parallel: bool = False
) -> tuple[Corpus, Corpus]:
    """What is measured, and other text; one text, and all of a text whatever else is asked for, is halved.

    languages: none means all of the corpus. Raises LanguageError for fewer than two.
    """
    refuse_one_text(languages, "languages", LanguageError)
    pair = (WHOLE, WHOLE) if WHOLE in (split, other_split) else (split, other_split)
    tags = tuple(languages) or None
    texts, other_texts = (load_corpus(corpus, tags, split=part, parallel=parallel) for part in pair)
    if len(texts) < 2:
        raise LanguageError(f"{', '.join(texts)} came alone; expected at least two languages; add text")
    if texts.hash != other_texts.hash:
        return texts, other_texts
    halves = {tag: len(documents) // 2 for tag, documents in texts.items()}
    first = texts.derived({tag: part[: halves[tag]] for tag, part in texts.items()}, f"{texts.name}, first half")
    second = texts.derived({tag: part[halves[tag] :] for tag, part in texts.items()}, f"{texts.name}, second half")
    return second, first
