"""The lens of several models in one figure: means over targets, shares of the depth, and the page."""

import json

import numpy as np
import pytest

from babelscope.controls import write_evidence
from babelscope.figures.lens_overlay import LensCourse, lens_overlay
from babelscope.probes.probe_evidence import SiteEvidence
from babelscope.report import write_report
from babelscope.report.evidence_sections import read_evidence
from babelscope.report.lens_comparison import lens_courses, lens_section


def row(target, against, depth, estimate, task="a translation from fr"):
    return SiteEvidence(
        claim=f"logit lens, right word of {task}, probability",
        language=target,
        control="the words of other concepts",
        n=5,
        estimate=estimate,
        site="0.resid_in" if depth == 0 else f"{depth - 1}.resid_out",
        against=against,
        null=0.01 * depth,
    )


def probed(folder, depths, base):
    """A folder of `probe --probe lens` with two targets, and what is to be seen of it."""
    place = folder / "lens"
    place.mkdir(parents=True)
    values = {
        (tag, to): base + np.arange(depths) * (0.1 if to == tag else 0.02)
        for tag in ("zh", "fi")
        for to in (tag, "en", "ru")
    }
    values["fi", "fi"] = values["fi", "fi"] + 0.2
    rows = [row(tag, to, depth, float(v[depth])) for (tag, to), v in values.items() for depth in range(depths)]
    rows += [row("en", "en", depth, 9.0) for depth in range(depths)]
    rows += [row("zh", to, depth, 0.5, "a cloze") for to in ("zh", "en") for depth in range(depths)]
    write_evidence(rows, place / "results.jsonl")
    summary = {"rows": {"lens": len(rows)}, "left_out": {}, "text": {"measured": {"documents": {"fi": 3, "zh": 3}}}}
    (folder / "summary.json").write_text(json.dumps(summary))
    return (values["zh", "zh"] + values["fi", "fi"]) / 2, values["zh", "en"]


def test_courses_are_means_over_the_targets_but_the_pivot(tmp_path):
    target, pivot = probed(tmp_path / "a", 4, 0.1)
    courses = lens_courses(read_evidence(tmp_path / "a" / "lens" / "results.jsonl"), "a")
    assert set(courses) == {"translation", "cloze"}
    assert courses["translation"].target == pytest.approx(list(target))
    assert courses["translation"].pivot == pytest.approx(list(pivot))
    assert courses["translation"].null == pytest.approx([0, 0.01, 0.02, 0.03]) and courses["cloze"].target == [0.5] * 4


def test_models_of_other_depths_lie_over_each_other_in_one_page(tmp_path):
    for name, depths in (("small", 4), ("large", 7)):
        probed(tmp_path / name, depths, 0.1)
    out = write_report([tmp_path / "small", tmp_path / "large"], out=tmp_path / "page.html")
    page = out.read_text()
    assert "The lens of several models" in page and "small: the target" in page and "large: English" in page
    assert "The lens of several models" not in write_report(tmp_path / "small", out=tmp_path / "one.html").read_text()
    assert lens_section({"small": tmp_path / "small"}, "x") is None
    (tmp_path / "b").mkdir()
    probed(tmp_path / "b" / "small", 5, 0.1)
    again = write_report([tmp_path / "small", tmp_path / "b" / "small"], out=tmp_path / "same.html").read_text()
    assert "1 small: English" in again and "2 small: English" in again


def test_the_figure_has_a_colour_a_model_and_a_panel_a_task():
    courses = [LensCourse("a", [0, 0.5, 1], [0, 1, 0], [0, 0, 0]), LensCourse("b", [0, 1], [1, 0], [0, 0])]
    figure = lens_overlay(panels={"translation": courses, "cloze": courses[:1]}, pivot="en")
    assert len(figure.data) == 9
    by_name = {line.name: line for line in figure.data[:6]}
    assert list(by_name["a: the target's language"].x) == [0, 0.5, 1] and list(by_name["b: English"].x) == [0, 1]
    assert (
        by_name["a: English"].line.dash == "dash"
        and by_name["a: English"].line.color != by_name["b: English"].line.color
    )
    assert sum(line.showlegend for line in figure.data) == 6


def test_rows_that_say_no_place_are_left_out(tmp_path):
    file = tmp_path / "results.jsonl"
    write_evidence([row("zh", "zh", 1, 0.5)], file)
    text = json.loads(file.read_text())
    file.write_text(
        "".join(json.dumps({**text, **part}) + "\n" for part in ({"site": None}, {"site": "x"}, {"null": "?"}))
    )
    assert lens_courses(read_evidence(file), "a") == {}
