"""Lens probes of several folders laid over each other: one figure for all models."""

import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from babelscope.figures.lens_overlay import LensCourse, lens_overlay
from babelscope.report.evidence_sections import read_evidence
from babelscope.report.folder_records import EvidenceRow
from babelscope.report.markup import Caption, Plot, Section, figure_block

CLAIM = re.compile(r"right word of a (translation|repetition|cloze)\b")
SITE = re.compile(r"(\d{1,6})\.(resid_in|resid_out)")
PIVOT = "en"


def lens_courses(rows: Sequence[EvidenceRow], model: str) -> dict[str, LensCourse]:
    """By task: probability of the right word at each depth, mean over targets other than the pivot; none without."""
    values: dict[str, dict[str, dict[int, list[float]]]] = {}
    for row in rows:
        task, site = CLAIM.search(row.claim), SITE.fullmatch(str(row.further.get("site")))
        if task is None or site is None or row.language == PIVOT:
            continue
        depth, null = 0 if site[2] == "resid_in" else int(site[1]) + 1, row.further.get("null")
        of_task = values.setdefault(task[1], defaultdict(lambda: defaultdict(list)))
        if row.further.get("against") == row.language:
            of_task["target"][depth].append(row.estimate)
            of_task["null"][depth].append(float(null) if isinstance(null, int | float) else math.nan)
        elif row.further.get("against") == PIVOT:
            of_task["pivot"][depth].append(row.estimate)

    def course(lines: Mapping[str, Mapping[int, list[float]]], name: str) -> list[float]:
        by_depth = lines[name]
        return [float(np.mean(by_depth[depth])) for depth in sorted(by_depth)]

    return {
        task: LensCourse(model, course(lines, "target"), course(lines, "pivot"), course(lines, "null"))
        for task, lines in values.items()
        if "target" in lines and set(lines["target"]) == set(lines.get("pivot", ())) and len(lines["target"]) > 1
    }


def lens_section(folders: Mapping[str, Path], name: str) -> Section | None:
    """The figure of all folders of `probe` that asked for words under the lens; None where fewer than two did.

    folders: by the name that stands in the figure.
    """
    files = {label: folder / "lens" / "results.jsonl" for label, folder in folders.items()}
    courses = {label: lens_courses(read_evidence(file), label) for label, file in files.items() if file.is_file()}
    panels: dict[str, list[LensCourse]] = {}
    for by_task in courses.values():
        for task, course in by_task.items():
            panels.setdefault(task, []).append(course)
    panels = {task: lines for task, lines in panels.items() if len(lines) > 1}
    if not panels:
        return None
    records = [
        {"task": task, "model": line.model, "depth": depth, "target": target, "pivot": pivot, "null": null}
        for task, lines in panels.items()
        for line in lines
        for depth, (target, pivot, null) in enumerate(zip(line.target, line.pivot, line.null, strict=True))
    ]
    caption = Caption(
        shows="Probability of the right word at each depth, in the language that is to be said and in English.",
        read="A colour is a model. Where the dashed line is above the solid one, the model has the English word before "
        "the one that it says. Depths are shares, so that models of other depths can be compared.",
        n=f"{len(courses)} models; mean over target languages",
        control="words of other concepts (dotted)",
        seed="that of each probe",
        unit="probability",
    )
    plot = Plot(lens_overlay(panels=panels, pivot=PIVOT), "The lens of several models", records)
    return Section("lenses", "The lens of several models", figure_block(f"{name}-lenses", [plot], caption))
