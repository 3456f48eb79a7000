"""Figures of the geometric probes: each number where it belongs."""

import numpy as np
import pytest
from scipy.cluster.hierarchy import average, dendrogram
from scipy.spatial.distance import squareform

from babelscope.figures.probes_geometry import (
    DepthLine,
    ScriptBar,
    depth_lines,
    depth_map,
    embedding_bars,
    latent_language_map,
    similarity_dendrogram,
)
from babelscope.figures.svg_figure import figure_svg


def test_lines_stand_in_their_panel_with_their_interval():
    own = DepthLine("own", [0.1, 0.5, 0.9], [0.0, 0.4, 0.8], [0.2, 0.6, 1.0])
    chance = DepthLine("chance", [0.2, 0.2, 0.2], control=True)
    figure = depth_lines(panels={"share": [own, chance], "nats": [DepthLine("own", [3, 2, 1])]})
    assert [(trace.name, trace.yaxis) for trace in figure.data] == [("own", "y"), ("chance", "y"), ("own", "y2")]
    assert list(figure.data[0].y) == [0.1, 0.5, 0.9]
    assert figure.data[0].error_y.array == pytest.approx((0.1, 0.1, 0.1))
    assert figure.data[0].line.color == figure.data[2].line.color != figure.data[1].line.color
    assert [trace.showlegend for trace in figure.data] == [True, True, False]
    assert list(figure.layout.xaxis2.ticktext) == ["in", "0", "1"]


def test_a_map_brackets_what_is_not_above_the_control():
    figure = depth_map(
        value=np.array([[0.2, 0.95], [0.5, 0.0]]), p=np.array([[0.2, 0.01], [0.05, 1.0]]), languages=["en", "fi"],
        unit="MEXA",
    )  # fmt: skip
    heat = figure.data[0]
    assert list(heat.y) == ["English (en)", "Finnish (fi)"] and list(heat.x) == ["in", "0"]
    assert heat.text.tolist() == [["(0.20)", "0.95"], ["0.50", "(0.00)"]]
    assert figure.layout.coloraxis.cmin == 0 and figure.layout.coloraxis.colorbar.title.text == "MEXA"


def test_the_leading_language_stands_in_its_cell():
    figure = latent_language_map(share=np.array([[0.1, 0.3]]), leading=[["de", "en"]], languages=["fi"], unit="share")
    assert figure.data[0].text.tolist() == [["de", "en"]] and figure.data[0].z.tolist() == [[0.1, 0.3]]


def test_a_tree_has_the_shape_that_scipy_draws():
    generator = np.random.default_rng(0)
    distance = squareform(generator.uniform(0.1, 1, 10))
    linkage = average(squareform(distance))
    tags, groups = ["en", "de", "fr", "fi", "et"], ["IE", "IE", "IE", "Uralic", "Uralic"]
    figure = similarity_dendrogram(linkage=linkage, languages=tags, groups=groups)
    lines = figure.data[0]
    heights = sorted({x for x in lines.x if x})
    witness = dendrogram(linkage, no_plot=True)
    assert heights == pytest.approx(sorted({x for link in witness["dcoord"] for x in link if x}))
    assert list(figure.layout.yaxis.ticktext) == [
        {"en": "English (en)", "de": "German (de)", "fr": "French (fr)", "fi": "Finnish (fi)", "et": "Estonian (et)"}[
            tags[leaf]
        ]
        for leaf in witness["leaves"]
    ]
    assert {trace.name: len(trace.x) for trace in figure.data[1:]} == {"IE": 3, "Uralic": 2}


def test_bars_have_their_interval_and_their_chance():
    figure = embedding_bars(bars=[ScriptBar("latin", 0.8, 0.7, 0.85, 0.5)], unit="same script (%)")
    bar, chance = figure.data
    assert list(bar.x) == [80.0] and bar.error_x.array == pytest.approx((5.0,)) and list(chance.x) == [50.0]


def test_names_can_not_break_the_page():
    figure = depth_lines(panels={"share": [DepthLine("<script>", [1, 2]), DepthLine("b", [2, 1])]})
    text = figure_svg(figure, name="a", title="<script>", description='"<script>')
    assert "<script>" not in text
    assert text.count("&lt;script&gt;") >= 3
