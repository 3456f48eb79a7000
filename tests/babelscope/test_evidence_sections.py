"""Pictures and rows of evidence in a page: figures come back from their files, a table has what tells rows apart."""

import html
import json
import re
from dataclasses import replace
from urllib.parse import unquote

import numpy as np
import plotly.graph_objects as go
import pytest

from babelscope import write_report
from babelscope.controls import Evidence, write_evidence
from babelscope.errors import ArtifactError
from babelscope.figures import AdaptationRow, FigureCaption, adaptation_figure, figure_svg, rate_map, write_figure
from babelscope.figures.pages import OPEN, read_figures
from babelscope.figures.probes_geometry import DepthLine, depth_lines
from babelscope.figures.style import new_figure
from babelscope.report.evidence_sections import (
    MOST_OFFERED,
    MOST_PICTURES,
    MOST_ROWS,
    evidence_section,
    figure_records,
    pictures,
    read_evidence,
)
from babelscope.report.folder_records import AdaptationFile
from babelscope.report.folder_sections import adaptation_section
from babelscope.report.markup import data_links

CAPTION = FigureCaption("Rates </script>", "How often <b>units</b> are active.")
COURSE = {"curve": [(100, 2.5), (200, 2.25)], "moved": {"gate": [3.0, 0.0], "down": [4.0, 1.0]}}
ADAPTED = AdaptationRow(
    kind="language", language="eu", seed=0, share=0.01, gain=0.2, harm=0.1, similarity=[0.9, 0.8], **COURSE
)
FIGURES = {
    "map": rate_map(rates=np.array([[0.1, np.nan, 0.3], [0.4, 0.5, 1.0]]), layers=[0, 1, 2], languages=["en", "fi"]),
    "lines": depth_lines(panels={"accuracy": [DepthLine("mean", [0.1, 0.9]), DepthLine("chance", [0.5, np.nan])]}),
    "points": adaptation_figure(rows=[ADAPTED, ADAPTED._replace(kind="full", gain=0.1)]),
}


def drawn(figure):
    return figure_svg(figure, name="figure-1", title=CAPTION.title, description=CAPTION.shows)


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_comes_back_from_its_page_as_it_was_drawn(name, tmp_path):
    page = write_figure(FIGURES[name], tmp_path / "one.html", CAPTION)
    ((figure, caption),) = read_figures(page)
    text = page.read_text(encoding="utf-8")
    assert caption == CAPTION and drawn(figure) == drawn(FIGURES[name])
    # The title ends no script, and nothing in the page runs but its own script.
    assert len(re.findall("</script>", text)) == len(re.findall("<script", text)) == 2


def test_rows_with_different_fields_stand_under_their_own_columns():
    rows = [{"claim": "a", "estimate": 0.5}, {"claim": "b", "site": "1.mlp_gate", "estimate": float("nan")}]
    links = {
        kind: unquote(text)
        for kind, text in re.findall(r"data:text/(\w+);charset=utf-8,([^\"]*)", data_links("x", rows))
    }
    assert links["csv"] == "claim,estimate,site\na,0.5,\nb,,1.mlp_gate\n"
    assert json.loads(html.unescape(links["json"])) == {
        "columns": ["claim", "estimate", "site"],
        "data": [["a", 0.5, None], ["b", None, "1.mlp_gate"]],
    }


def test_numbers_of_a_figure_are_a_row_a_mark():
    rows = figure_records(FIGURES["map"])
    assert [row["value"] for row in rows[:1]] == [10.0] and len(rows) == 6
    assert rows[5] == {"series": "", "x": "2", "y": "Finnish (fi)", "value": 100.0}
    lines = figure_records(FIGURES["lines"])
    assert [row["y"] for row in lines if row["series"] == "mean"] == [0.1, 0.9]


@pytest.mark.parametrize(
    "values",
    [
        "[]",
        "{",
        '{"title": 3, "shows": "", "data": [], "layout": {}}',
        '{"title": "", "shows": "", "data": [{"type": "bar", "marker": {"color": "red\\"><b>"}}], "layout": {}}',
        '{"title": "", "shows": "", "data": [{"type": "no such"}], "layout": {}}',
        '{"title": "", "shows": "", "data": [], "layout": {"no such": 1}}',
        '{"title": "", "shows": "", "data": [{"type": "pie"}], "layout": {"height": 300}}',
        '{"title": "", "shows": "", "data": [{"type": "heatmap", "z": [["a"]]}], "layout": {"height": 300}}',
    ],
)
def test_damaged_figures_are_one_line(values, tmp_path):
    (tmp_path / "a.html").write_text(f"{OPEN}{values}</script>")
    with pytest.raises(ArtifactError, match="a.html") as caught:
        pictures(tmp_path, "a")
    assert "\n" not in str(caught.value)


def test_what_is_no_page_of_figures_is_one_line_or_nothing(tmp_path, monkeypatch):
    (tmp_path / "plain.html").write_text("<p>words</p>")
    assert pictures(tmp_path, "a") == []
    monkeypatch.setattr("babelscope.figures.pages.MOST_BYTES", 5)
    with pytest.raises(ArtifactError, match="plain.html: is above"):
        pictures(tmp_path, "a")
    (tmp_path / "plain.html").unlink()
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(ArtifactError, match="folder.html: cannot be read"):
        pictures(tmp_path, "a")


def test_markup_in_a_picture_of_a_folder_stays_text(tmp_path):
    words = "<img src=x onerror=alert(1)>"
    figure = new_figure(height=300)
    figure.add_trace(go.Scatter(x=[words, "b"], y=[1.0, 2.0], name=words, text=[words, words], mode="markers+text"))
    write_figure(figure, tmp_path / "a.html", FigureCaption(words, words))
    (block,) = pictures(tmp_path, "a")
    assert "<img" not in block and "&lt;img" in block


def rows_of(tmp_path, *rows):
    return read_evidence(write_evidence(rows, tmp_path / "results.jsonl"))


def heads(section):
    return re.findall(r'<th scope="col">(.*?)</th>', section.body)


def test_a_table_has_a_column_for_what_differs_and_says_once_what_does_not(tmp_path):
    row = Evidence(claim="c", language="fi", control="shuffled", n=3, estimate=0.00012, p=0.5, draws=9, seed=1)
    rows = rows_of(tmp_path, row, replace(row, language="en", low=0.1, high=0.2), replace(row, note="few"))
    section = evidence_section(rows, "x")
    assert heads(section) == ["Claim", "Language", "Estimate", "Interval", "p", "n", "Note"]
    assert "In every row: control: shuffled; draws: 9; seed: 1." in section.body
    assert ">0.00012<" in section.body and ">[0.1, 0.2]<" in section.body and ">few<" in section.body
    (alone,) = (evidence_section(rows[:1], "x"),)
    assert "In every row" not in alone.body and ">shuffled<" in alone.body


def test_of_many_rows_each_claim_shows_those_furthest_from_their_control(tmp_path):
    common = {"language": "fi", "control": "y", "n": 1}
    many = [Evidence(claim="many", estimate=float(at), p=0.5 - at / 1e4, **common) for at in range(MOST_OFFERED)]
    rows = rows_of(tmp_path, *many, Evidence(claim="one", estimate=-7.5, **common))
    section = evidence_section(rows, "x")
    cells = re.findall(r'<th scope="row">(.*?)</th>', section.body)
    assert cells == ["many"] * (MOST_ROWS // 2) + ["one"] and f">{MOST_OFFERED - 1}<" in section.body
    assert f"{len(cells)} of {len(rows)} rows, of 2 of 2 claims" in section.body and ">−7.5<" in section.body
    # A probe of a real model writes so many rows that a page which offered them would weigh tens of megabytes.
    assert "data:text/csv" not in section.body and "data:text/csv" in evidence_section(rows[:MOST_OFFERED], "x").body


MARKERS = {
    "edit": "edits.jsonl",
    "knowledge": "shared_facts.html",
    "priming": "priming.html",
    "transfer": "transfer.html",
    "experts": "model/config.json",
}


@pytest.mark.parametrize("verb", MARKERS)
def test_folders_of_rows_and_pictures_have_a_page(verb, tmp_path):
    folder = tmp_path / "made"
    (folder / "model").mkdir(parents=True)
    (folder / MARKERS[verb]).write_text("{}")
    write_evidence([Evidence(claim="c", language="fi", control="y", n=3, estimate=0.25)], folder / "results.jsonl")
    for at in range(MOST_PICTURES + 1):
        write_figure(FIGURES["map"], folder / f"map{at}.html", CAPTION)
    text = write_report(folder, out=tmp_path / "page.html").read_text(encoding="utf-8")
    assert text.count('class="drawing"') == MOST_PICTURES and " more picture" in text
    assert f">{verb}<" in text and json.dumps(0.25) in text


def test_the_page_of_a_training_has_a_bar_for_each_test_language():
    bits = {"eu": 3.2, "en": 1.1}
    written = AdaptationFile(
        language="eu", trained=10, gain=0.4, learning_rate=1e-3, before=bits, after={"en": 1.15, "eu": 2.8}
    )
    body = adaptation_section(written, "run1").body
    assert "12.5" in body and body.count("bits per byte</title>") == 2 and "\u22120.4" in body
