import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator

import numpy as np
import plotly.graph_objects as go
import pytest
from plotly.subplots import make_subplots

from babelscope.errors import MeasurementError
from babelscope.figures import ablation_map, figure_svg, set_sizes
from babelscope.figures.style import new_figure, short_label
from babelscope.figures.svg_axes import axes_of, round_ticks
from babelscope.figures.svg_marks import ColourBar, DrawingArea, notes_width, said_by, trace_colour


def parsed(figure: go.Figure) -> ET.Element:
    return ET.fromstring(f"<div>{figure_svg(figure, name='a', title='Title', description='Text.')}</div>")


def drawing(figure: go.Figure) -> ET.Element:
    found = parsed(figure).find("svg[@class='drawing']")
    assert found is not None
    return found


def marks(figure: go.Figure, kind: str) -> Iterator[tuple[dict[str, str], str]]:
    """Marks of a kind with what they say."""
    for mark in drawing(figure).iter(kind):
        said = mark.find("title")
        if said is not None:
            yield mark.attrib, said.text or ""


def percent(text: str) -> float:
    assert text.endswith("%")
    return float(text[:-1])


def test_cells_of_a_map_lie_in_the_row_of_their_set_and_the_column_of_their_text() -> None:
    figure = ablation_map(relative_harm=np.array([[0.093, 0.02], [np.nan, -0.04]]), languages=["ru", "fi"])
    figure.layout.height = 310
    cells = {said: found for found, said in marks(figure, "rect")}
    own = cells["Russian neurons off, Russian text: +9.3 %"]
    assert (own["x"], own["width"], own["y"], own["height"]) == ("0%", "50%", "0", "100")
    across = cells["Russian neurons off, Finnish text: +2.0 %"]
    assert (across["x"], across["y"]) == ("50%", "0")
    other = cells["Finnish neurons off, Finnish text: −4.0 %"]
    assert (other["x"], other["width"], other["y"], other["height"]) == ("50%", "50%", "100", "100")


def test_colours_of_a_cell_are_those_of_its_value_on_both_pages() -> None:
    figure = ablation_map(relative_harm=np.array([[0.1, -0.1], [0.0, 0.05]]), languages=["ru", "fi"])
    figure.layout.coloraxis.update(cmin=-10, cmax=10)
    styles = {said.partition(": ")[2]: found["style"] for found, said in marks(figure, "rect")}
    assert styles == {
        "+10.0 %": "--l:#B35806;--d:#FDAE61", "−10.0 %": "--l:#08519C;--d:#6BAED6",
        "0.0 %": "--l:#F7F5F0;--d:#23272E", "+5.0 %": "--l:#FDAE61;--d:#A85F16",
    }  # fmt: skip


def test_bars_begin_at_zero_and_end_at_their_value_with_arms_to_their_interval() -> None:
    figure = set_sizes(
        sizes=np.array([100.0, 50.0]), intervals=np.array([[90.0, 120.0], [np.nan, np.nan]]), languages=["ru", "fi"]
    )
    figure.update_xaxes(range=[0, 200])
    bars = {said: found for found, said in marks(figure, "rect")}
    assert (bars["Russian: 100 neurons (90 to 120)"]["x"], bars["Russian: 100 neurons (90 to 120)"]["width"]) == (
        "0%",
        "50%",
    )
    assert bars["Finnish: 50 neurons"]["width"] == "25%"
    arms = [line.attrib for line in drawing(figure).iter("line") if line.get("class") == "o"]
    assert [(percent(arm["x1"]), percent(arm["x2"])) for arm in arms] == [(45.0, 60.0)]


def points(**axis: object) -> go.Figure:
    figure = new_figure(height=310)
    figure.add_scatter(x=[1, 10, 100], y=[0, 5, 10], mode="lines+markers", hovertext=["a", "b", "c"])
    figure.update_layout(xaxis=axis, yaxis={"range": [0, 10]})
    return figure


def test_points_lie_at_their_values_on_linear_and_logarithmic_axes() -> None:
    linear = {said: (percent(found["cx"]), found["cy"]) for found, said in marks(points(range=[0, 200]), "circle")}
    assert linear == {"a": (0.5, "200"), "b": (5.0, "100"), "c": (50.0, "0")}
    logarithmic = {said: percent(found["cx"]) for found, said in marks(points(type="log", range=[0, 2]), "circle")}
    assert logarithmic == {"a": 0.0, "b": 50.0, "c": 100.0}


def test_a_line_breaks_where_a_point_is_missing() -> None:
    figure = new_figure(height=310)
    figure.add_scatter(x=[0, 1, 2, 3], y=[0, 1, np.nan, 1], mode="lines")
    figure.update_layout(xaxis={"range": [0, 4]}, yaxis={"range": [0, 1]})
    lines = [path.get("d") for path in drawing(figure).iter("path")]
    assert lines == ["M0 200L250 0M750 0"]


def test_panels_share_the_drawing_by_their_domains() -> None:
    figure = go.Figure(make_subplots(rows=2, cols=1, vertical_spacing=0.2))
    figure.update_layout(height=310)
    for row in (1, 2):
        figure.add_scatter(x=[0], y=[0], mode="markers", hovertext=[f"row {row}"], row=row, col=1)
    figure.update_xaxes(range=[0, 1])
    figure.update_yaxes(range=[0, 1])
    assert {said: found["cy"] for found, said in marks(figure, "circle")} == {"row 1": "80", "row 2": "200"}


def test_figure_has_a_name_a_description_and_its_extremes_for_screen_readers() -> None:
    found = drawing(points())
    assert (found.get("role"), found.get("aria-labelledby")) == ("img", "a-title a-desc")
    assert [part.text for part in found[:2]] == ["Title", "Text. Highest: c. Lowest: a."]


def test_labels_are_names_on_a_wide_and_tags_on_a_narrow_screen() -> None:
    figure = ablation_map(relative_harm=np.eye(2), languages=["ru", "zh-Hant"])
    texts = [(found.get("class"), found.text) for found in drawing(figure).iter("text")]
    assert ("t w", "Russian (ru)") in texts and ("t s", "ru") in texts and ("t s", "zh-Hant") in texts
    assert [short_label(label) for label in ("Chinese (Traditional) (zh-Hant)", "strength (%)", "layer 3")] == [
        "zh-Hant", "strength (%)", "layer 3",
    ]  # fmt: skip


def test_more_labels_than_fit_are_thinned_out_and_none_is_moved() -> None:
    figure = new_figure(height=310)
    figure.add_heatmap(z=np.ones((1, 40)), x=[str(at) for at in range(40)], y=["a"], coloraxis="coloraxis")
    figure.update_layout(coloraxis={"colorscale": ((0, "#FFFFFF"), (1, "#000000")), "cmin": 0, "cmax": 1})
    shown = {kind: [] for kind in ("t w", "t s")}
    for found in drawing(figure).iter("text"):
        if (found.get("class") or "") in shown:
            shown[found.get("class") or ""].append((found.text, percent(found.get("x") or "")))
    assert shown["t w"] == [(str(at), 2.5 * at + 1.25) for at in range(0, 40, 2)]
    assert [label for label, _ in shown["t s"]] == [str(at) for at in range(0, 40, 4)]


@pytest.mark.parametrize(
    "symbol", ["circle-open", "square", "diamond", "triangle-up", "x", "cross", "line-ns", "x-thin", "star"]
)
def test_every_symbol_that_figures_use_has_a_path(symbol: str) -> None:
    figure = points()
    figure.data[0].marker.symbol = symbol
    paths = [path for path in drawing(figure).iter("path") if path.find("title") is not None]
    assert len(paths) == 3
    assert all(re.fullmatch(r"[MLaZ0-9 .\-]+", path.get("d") or "") for path in paths)


def test_ticks_are_round_and_inside() -> None:
    assert round_ticks(0, 100) == [0, 25, 50, 75, 100]
    assert round_ticks(-0.13, 0.31) == pytest.approx([-0.1, 0, 0.1, 0.2, 0.3])
    assert round_ticks(3, 9, 2) == [4, 6, 8]
    axis = axes_of(points(), "x")["x"]
    assert axis.ends == (pytest.approx(1 - 4.95), pytest.approx(100 + 4.95))


def test_a_trace_that_has_no_drawing_is_named() -> None:
    figure = new_figure(height=310)
    figure.add_pie(values=[1, 2])
    with pytest.raises(MeasurementError, match="trace pie cannot be drawn as SVG; expected bar, heatmap, scatter"):
        figure_svg(figure, name="a", title="b", description="c")


def area_of(figure: go.Figure, height: float) -> DrawingArea:
    return DrawingArea(axes_of(figure, "x"), axes_of(figure, "y"), height)


def test_a_place_is_a_value_a_share_of_an_axis_or_a_share_of_the_whole() -> None:
    figure = points(range=[0, 200], domain=[0.5, 1.0])
    area = area_of(figure, 300.0)
    trace = figure.data[0]
    assert area.across(trace, 100) == 0.75 and area.down(trace, 2.5) == 225
    assert [area.fixed_place(reference, 0.5) for reference in ("paper", "x domain", "y domain")] == [0.5, 0.75, 0.5]
    assert area.fixed_place("x", 50) == 0.625 and area.fixed_place("y", 5) == 0.5


def test_a_colour_bar_holds_at_its_ends_and_writes_light_on_dark() -> None:
    bar = ColourBar(((0.0, "#FFFFFF"), (1.0, "#000000")), low=-2.0, high=6.0, title="", ticks=())
    assert [bar.place(value) for value in (-9, -2, 2, 6, 70)] == [0, 0, 0.5, 1, 1]
    assert bar.paint(0.0) == "--l:#FFFFFF;--d:#FFFFFF"
    assert (bar.ink(-2), bar.ink(6)) == ("lb db", "lw dw")


def test_a_trace_says_a_text_per_mark_and_has_the_colour_of_its_marks_before_its_line() -> None:
    said = go.Scatter(x=[1, 2], y=[1, 2], hovertext=["a", "b"], marker={"color": "#111111"}, line={"color": "#222222"})
    assert said_by(said) == ["a", "b"] and trace_colour(said) == "#111111"
    silent = go.Scatter(x=[1, 2, 3], y=[1, 2, 3], line={"color": "#222222"})
    assert said_by(silent) == ["", "", ""] and trace_colour(silent) == "#222222"
    assert trace_colour(go.Bar(x=[1], y=[1], marker={"line": {"color": "#333333"}})) == "#333333"


def test_only_notes_right_of_the_drawing_need_room_there() -> None:
    figure = points()
    figure.add_annotation(text="inside, and much longer than the other", x=0.5, y=0.5, xref="paper", yref="paper")
    assert notes_width(figure) == 0.0
    figure.add_annotation(text="short<br>the longest line", x=1.1, y=0.5, xref="paper", yref="paper")
    wide = notes_width(figure)
    figure.layout.annotations[1].text = "the longest line"
    assert notes_width(figure) == wide > 0.0


def test_lines_of_a_colour_bars_title_stand_side_by_side():
    figure = ablation_map(relative_harm=np.eye(2), languages=["en", "fi"])
    figure.update_layout(coloraxis_colorbar_title_text="one<br>two")
    text = figure_svg(figure, name="a", title="Title", description="Text.")
    assert "one two" in text and "br" not in re.findall(r"one.{4}", text)[0]


def test_a_colour_for_each_mark_is_refused_where_it_was_drawn_as_the_first():
    with pytest.raises(MeasurementError, match="a colour for each mark"):
        parsed(new_figure(height=300).add_bar(x=[1, 2], y=[0, 1], marker={"color": ["#000000", "#ffffff"]}))
