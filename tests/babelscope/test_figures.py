import math
from collections.abc import Sequence

import numpy as np
import pytest

from babelscope.figures import (
    CorpusSizePoint,
    DosePoint,
    Figure,
    Retention,
    ablation_map,
    agreement_map,
    colour_limit,
    corpus_size_lines,
    dose_response_lines,
    harm_against_draws,
    language_label,
    neuron_map,
    overlap_map,
    script_retention,
    script_share_bars,
    set_sizes,
    source_target_map,
    stability_ranges,
    steering_bars,
)
from babelscope.figures.colour_scales import (
    DIVERGING,
    SEQUENTIAL,
    Scale,
    colour_at,
    dark_scale,
    is_dark,
    luminance,
)
from babelscope.figures.style import page_template

NAN = math.nan
THREE = ["en", "fi", "ar"]
EN, FI, AR = "English (en)", "Finnish (fi)", "Arabic (ar)"
HARM = np.array([[0.01, 0.02, -0.03], [0.04, 0.05, 0.06], [0.07, 0.08, NAN]])


def cell(figure: Figure, row: str, column: str) -> tuple[float, str]:
    """Value and text of the cell where these two labels meet."""
    heat = figure.data[0]
    at = list(heat.y).index(row), list(heat.x).index(column)
    return float(np.array(heat.z)[at]), str(np.array(heat.text)[at])


def bare_text(figure: Figure, row: str, column: str) -> str:
    """Text on a cell that has no colour."""
    written = figure.data[1]
    return dict(zip(zip(written.y, written.x, strict=True), written.text, strict=True))[row, column]


def mark(figure: Figure, name: str) -> dict[float, float]:
    """Where a named trace has its marks: x by row."""
    trace = next(trace for trace in figure.data if trace.name == name)
    return dict(zip(trace.y, trace.x, strict=True))


def tick(figure: Figure, label: str) -> int:
    """Row of a label on the y axis."""
    return list(figure.layout.yaxis.ticktext).index(label)


def test_label_has_the_name_beside_the_tag() -> None:
    assert [language_label(tag) for tag in ("tt", "zh", "zh-Hant")] == [
        "Tatar (tt)",
        "Chinese (zh)",
        "Chinese (Traditional) (zh-Hant)",
    ]


def test_neuron_map_has_each_count_in_the_row_of_its_language_and_the_column_of_its_layer() -> None:
    figure = neuron_map(counts=np.array([[0.0, 2.0], [3.0, 12.0], [5.0, 0.0]]), languages=THREE)
    assert cell(figure, EN, "1") == (2.0, "2")
    assert cell(figure, FI, "0") == (3.0, "3")
    assert cell(figure, FI, "1") == (12.0, "12")
    assert cell(figure, AR, "0") == (5.0, "5")
    assert bare_text(figure, EN, "0") == bare_text(figure, AR, "1") == "·"
    assert "layer" in figure.layout.xaxis.title.text


def test_agreement_is_a_row_a_pair_and_empty_where_both_sets_are() -> None:
    figure = agreement_map(
        jaccard=np.array([[0.5, NAN, 1.0], [0.25, 0.0, 0.125]]),
        chance=np.array([[0.01, NAN, 0.02], [0.03, 0.04, 0.05]]),
        pairs=["a – b", "a – c"],
        languages=THREE,
    )
    assert cell(figure, "a – b", AR) == (1.0, "1.00")
    assert cell(figure, "a – c", EN) == (0.25, "0.25")
    assert bare_text(figure, "a – b", FI) == "–"
    assert figure.data[0].hovertext[1][2] == "a – c, Arabic: Jaccard index 0.125, by chance 0.050"


def test_set_sizes_carry_their_own_intervals() -> None:
    figure = set_sizes(
        sizes=np.array([10.0, 20.0, 30.0]), intervals=np.array([[8.0, 13.0], [NAN, NAN], [21.0, 33.0]]), languages=THREE
    )
    bars = figure.data[0]
    assert list(bars.x) == [10, 20, 30]
    assert list(bars.error_x.array) == [3, 0, 3]
    assert list(bars.error_x.arrayminus) == [2, 0, 9]
    assert list(figure.layout.yaxis.ticktext) == [EN, FI, AR]
    assert figure.layout.yaxis.range[0] > figure.layout.yaxis.range[1]


def test_overlap_colours_the_logarithm_of_the_lift_and_brackets_what_chance_gives() -> None:
    figure = overlap_map(
        shared=np.array([[40.0, 4.0, 5.0], [4.0, 50.0, 7.0], [6.0, 7.0, 60.0]]),
        lift=np.array([[1.0, 10.0, 0.1], [10.0, 1.0, 0.0], [1.0, 1e6, 1.0]]),
        p=np.array([[0.0, 0.05, 0.051], [0.01, 0.0, 0.2], [0.04, 0.0, 0.0]]),
        languages=THREE,
    )
    assert cell(figure, EN, FI) == (pytest.approx(1.0), "4")
    assert cell(figure, EN, AR) == (pytest.approx(-1.0), "(5)")
    assert cell(figure, AR, EN) == (pytest.approx(0.0), "6")
    assert cell(figure, FI, AR) == (-2.0, "(7)")
    assert cell(figure, AR, FI) == (2.0, "7")
    assert math.isnan(cell(figure, FI, FI)[0])
    assert bare_text(figure, FI, FI) == "50"
    bar = figure.layout.coloraxis
    assert bar.cmin == -bar.cmax
    assert dict(zip(bar.colorbar.tickvals, bar.colorbar.ticktext, strict=True)) == {
        -2: "0.01", -1: "0.1", 0: "1", 1: "10", 2: "100",
    }  # fmt: skip


def test_ablation_map_has_the_set_in_the_row_and_the_text_in_the_column() -> None:
    figure = ablation_map(relative_harm=HARM, languages=THREE)
    assert cell(figure, EN, AR) == (pytest.approx(-3.0), "−3.0")
    assert cell(figure, AR, EN) == (pytest.approx(7.0), "7.0")
    assert cell(figure, FI, EN) == (pytest.approx(4.0), "4.0")
    assert cell(figure, EN, FI) == (pytest.approx(2.0), "2.0")
    assert math.isnan(cell(figure, AR, AR)[0])
    assert figure.layout.coloraxis.cmin == -figure.layout.coloraxis.cmax
    assert "set" in figure.layout.yaxis.title.text
    assert "text" in figure.layout.xaxis.title.text
    assert "(%)" in figure.layout.coloraxis.colorbar.title.text


def test_ablation_map_outlines_the_diagonal_and_nothing_else() -> None:
    boxes = ablation_map(relative_harm=HARM, languages=THREE).layout.shapes
    assert [(box.x0, box.x1, box.y0, box.y1) for box in boxes] == [
        (at - 0.5, at + 0.5, at - 0.5, at + 0.5) for at in range(3)
    ]


def test_permuting_the_languages_permutes_the_ablation_map() -> None:
    order = [2, 0, 1]
    first = ablation_map(relative_harm=HARM, languages=THREE)
    second = ablation_map(relative_harm=HARM[np.ix_(order, order)], languages=[THREE[at] for at in order])
    for row in (EN, FI, AR):
        for column in (EN, FI, AR):
            np.testing.assert_equal(cell(first, row, column), cell(second, row, column))


def test_colours_saturate_below_a_single_outlier_and_never_at_zero() -> None:
    values = np.full((20, 20), 0.1)
    values[3, 3] = -50.0
    assert colour_limit(values) == pytest.approx(0.1)
    assert colour_limit(np.zeros((4, 4))) == 1.0
    assert colour_limit(np.full((2, 2), NAN)) == 1.0


def test_source_target_map_need_not_be_square() -> None:
    figure = source_target_map(success=np.array([[0.5, NAN, 1.0]]), sources=["ru"], targets=THREE)
    assert cell(figure, "Russian (ru)", EN) == (50.0, "50")
    assert cell(figure, "Russian (ru)", AR) == (100.0, "100")
    assert cell(figure, "Russian (ru)", FI)[1] == ""
    assert (figure.layout.coloraxis.cmin, figure.layout.coloraxis.cmax) == (0, 100)


def test_wide_map_has_no_numbers_that_do_not_fit() -> None:
    narrow = neuron_map(counts=np.ones((1, 20)), languages=["en"])
    wide = neuron_map(counts=np.ones((1, 21)), languages=["en"])
    assert narrow.data[0].texttemplate == "%{text}"
    assert wide.data[0].texttemplate is None


def test_stability_has_range_and_chance_in_the_row_of_the_language() -> None:
    figure = stability_ranges(
        median=np.array([0.5, 0.6, NAN]),
        low=np.array([0.4, 0.3, NAN]),
        high=np.array([0.7, 0.65, NAN]),
        chance=np.array([0.01, 0.02, NAN]),
        languages=THREE,
    )
    ranges = figure.data[0]
    assert ranges.x[tick(figure, FI)] == 0.6
    assert ranges.error_x.array[1] == pytest.approx(0.05)
    assert ranges.error_x.arrayminus[1] == pytest.approx(0.3)
    assert mark(figure, "chance")[tick(figure, FI)] == 0.02


def test_corpus_curve_is_the_median_over_languages_at_each_share() -> None:
    points = [
        CorpusSizePoint(0.5, "fi", 0.6, 0.02),
        CorpusSizePoint(0.1, "en", 0.1, 0.01),
        CorpusSizePoint(0.5, "en", 0.2, 0.04),
        CorpusSizePoint(0.5, "ar", 0.9, 0.03),
        CorpusSizePoint(0.1, "fi", NAN, 0.01),
    ]
    figure = corpus_size_lines(points=points)
    middle = next(trace for trace in figure.data if trace.name == "median over languages")
    assert (list(middle.x), list(middle.y)) == ([10, 50], [0.1, 0.6])
    chance = next(trace for trace in figure.data if trace.name == "chance (median)")
    assert list(chance.y) == [0.01, 0.03]
    english = next(trace for trace in figure.data if trace.hovertext[0].startswith("English"))
    assert (list(english.x), list(english.y)) == ([10, 50], [0.1, 0.2])


def test_draws_stand_in_the_row_of_their_language_beside_the_set() -> None:
    figure = harm_against_draws(
        own_harm=np.array([0.001, 0.002, 0.003]),
        layer_matched={"fi": [0.0001, 0.0002], "ar": [0.0005]},
        contribution_matched={"fi": [0.0015]},
        p={"fi": "0.05 · 0.50"},
        languages=THREE,
    )
    row = tick(figure, FI)
    assert mark(figure, "the set") == pytest.approx({0: 0.1, 1: 0.2, 2: 0.3})
    layer = next(trace for trace in figure.data if trace.name == "layer-matched draws")
    assert [round(y) for y in layer.y] == [row, row, tick(figure, AR)]
    assert list(layer.x) == pytest.approx([0.01, 0.02, 0.05])
    contribution = next(trace for trace in figure.data if trace.name == "contribution-matched draws")
    assert ([round(y) for y in contribution.y], list(contribution.x)) == ([row], pytest.approx([0.15]))
    labels = {note.text: note.y for note in figure.layout.annotations}
    assert labels["0.05 · 0.50"] == row
    assert "%" in figure.layout.xaxis.title.text


def test_uneven_harm_is_drawn_as_a_signed_square_root_and_says_so() -> None:
    figure = harm_against_draws(
        own_harm=np.array([0.01, -0.0004, 0.16]),
        layer_matched={},
        contribution_matched={"en": [-0.0001]},
        p={},
        languages=THREE,
    )
    assert mark(figure, "the set") == pytest.approx({0: 1.0, 1: -0.2, 2: 4.0})
    assert "square-root" in figure.layout.xaxis.title.text
    ticks = dict(zip(figure.layout.xaxis.ticktext, figure.layout.xaxis.tickvals, strict=True))
    assert ticks["0"] == 0.0
    assert ticks["10"] == pytest.approx(math.sqrt(10))


def dose(layer: int, strength: float, success: float, ratio: float) -> DosePoint:
    return DosePoint(layer, strength, success, success - 0.1, success + 0.05, ratio, 0.9)


def test_dose_response_has_a_line_a_layer_in_order_of_strength() -> None:
    figure = dose_response_lines(
        band=(0.67, 1.5),
        points=[dose(5, 1.0, 0.8, 1.4), dose(3, 0.5, 0.3, 1.1), dose(5, 0.5, 0.6, 1.2)],
        chosen=[(5, 1.0)],
    )
    above = {trace.name: trace for trace in figure.data if trace.yaxis == "y"}
    below = {trace.name: trace for trace in figure.data if trace.yaxis == "y2"}
    assert (list(above["layer 5"].x), list(above["layer 5"].y)) == ([0.5, 1.0], pytest.approx([60, 80]))
    assert list(above["layer 5"].error_y.array) == pytest.approx([5, 5])
    assert list(above["layer 5"].error_y.arrayminus) == pytest.approx([10, 10])
    assert list(below["layer 5"].y) == [1.2, 1.4]
    assert list(above["layer 3"].y) == pytest.approx([30])
    assert (list(above["chosen"].x), list(above["chosen"].y)) == ([1.0], pytest.approx([80]))
    assert list(below["chosen"].y) == [1.4]
    band = figure.layout.shapes[0]
    assert (band.y0, band.y1, band.yref) == (0.67, 1.5, "y2")
    assert figure.layout.yaxis2.type == "log"
    assert "difference of means" in figure.layout.xaxis2.title.text


def test_lines_of_layers_differ_in_symbol_as_well_as_in_colour() -> None:
    figure = dose_response_lines(band=(0.5, 2.0), points=[dose(layer, 1.0, 0.5, 1.0) for layer in range(6)])
    lines = [trace for trace in figure.data if trace.yaxis == "y" and trace.name != "chosen"]
    assert len({trace.marker.symbol for trace in lines}) == len({trace.marker.color for trace in lines}) == 6


def test_steering_bars_stand_beside_the_comparisons_that_were_measured() -> None:
    figure = steering_bars(
        success={"fi": 0.8, "ar": 0.5},
        intervals={"fi": (0.7, 0.85)},
        comparisons={"native": {"fi": 0.9}, "random": {"fi": 0.02, "ar": 0.03}},
        targets=["fi", "ar"],
    )
    bars = figure.data[0]
    assert list(bars.x) == pytest.approx([80, 50])
    assert list(bars.error_x.array) == pytest.approx([5, 0])
    assert list(bars.error_x.arrayminus) == pytest.approx([10, 0])
    assert mark(figure, "native text (ceiling)")[tick(figure, FI)] == pytest.approx(90)
    assert mark(figure, "random direction")[tick(figure, AR)] == pytest.approx(3)
    assert [trace.name for trace in figure.data] == ["steered", "native text (ceiling)", "random direction"]


def test_language_without_a_script_control_is_marked_not_applicable_and_has_no_value() -> None:
    values = Retention(0.9, 0.3, 0.8, 0.1, 0.2, 0.75, 0.6, 0.85)
    figure = script_share_bars(rows=[("ar", values), ("fi", None)])
    assert list(figure.data[0].y) == [tick(figure, AR)]
    assert list(figure.data[0].x) == pytest.approx([75])
    assert list(figure.data[0].error_x.array) == pytest.approx([10])
    assert [(note.y, note.text) for note in figure.layout.annotations] == [(tick(figure, FI), "not applicable")]


def test_retention_has_a_mark_a_version_of_the_text() -> None:
    figure = script_retention(rows=[("ar", Retention(0.9, 0.3, 0.8, 0.1, 0.2, 0.75, 0.6, 0.85))])
    assert {trace.name: trace.x[0] for trace in figure.data} == pytest.approx({
        "native text (ceiling)": 90, "words shuffled": 80, "romanised": 30, "English text (floor)": 10,
        "random neurons, same layers": 20,
    })  # fmt: skip


def test_figures_leave_what_they_were_given_unchanged() -> None:
    harm, lift = HARM.copy(), np.ones((3, 3))
    ablation_map(relative_harm=harm, languages=THREE)
    overlap_map(shared=np.ones((3, 3)), lift=lift, p=np.zeros((3, 3)), languages=THREE)
    np.testing.assert_array_equal(harm, HARM)
    np.testing.assert_array_equal(lift, np.ones((3, 3)))


def contrast(first: str, second: str) -> float:
    """WCAG contrast ratio of two colours."""
    light, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_luminance_is_that_of_wcag() -> None:
    assert (luminance("#000000"), luminance("#FFFFFF")) == (0.0, pytest.approx(1.0))
    assert luminance("#808080") == pytest.approx(0.21586, abs=1e-5)
    assert luminance("#FF0000") == pytest.approx(0.2126)


def test_text_of_the_template_is_legible_on_paper() -> None:
    template = page_template()
    assert contrast(template.layout.font.color, "#FBFAF7") > 7
    assert contrast(template.layout.xaxis.title.font.color, "#FBFAF7") > 4.5


@pytest.mark.parametrize("scale", [SEQUENTIAL, DIVERGING])
def test_number_on_every_colour_of_a_scale_is_legible_on_light_and_dark_pages(scale: Scale) -> None:
    for colours in (scale, dark_scale(scale)):
        for place in np.linspace(0, 1, 101).tolist():
            ground = colour_at(colours, place)
            assert contrast("#FFFFFF" if is_dark(ground) else "#000000", ground) > 4.5, (place, ground)


def test_colour_between_two_is_mixed_by_its_place() -> None:
    scale = ((0.0, "#000000"), (0.5, "#646464"), (1.0, "#FF0000"))
    assert [colour_at(scale, place) for place in (-1, 0.25, 0.5, 0.75, 2)] == [
        "#000000", "#323232", "#646464", "#B23232", "#FF0000",
    ]  # fmt: skip


@pytest.mark.parametrize("colours", [SEQUENTIAL, dark_scale(SEQUENTIAL)])
def test_little_is_near_the_page_and_much_is_far_from_it(colours: Scale) -> None:
    page = 1.0 if colours is SEQUENTIAL else 0.0
    away = [abs(luminance(colour_at(colours, place)) - page) for place in np.linspace(0, 1, 21).tolist()]
    assert away == sorted(away)


def row_order(figure: Figure) -> Sequence[str]:
    return list(figure.data[0].y)


def test_first_language_is_at_the_top_of_every_map() -> None:
    for figure in (
        neuron_map(counts=np.ones((3, 2)), languages=THREE),
        ablation_map(relative_harm=HARM, languages=THREE),
        source_target_map(success=np.ones((3, 1)), sources=THREE, targets=["ru"]),
    ):
        assert row_order(figure) == [EN, FI, AR]
        assert figure.layout.yaxis.range == (2.5, -0.5)
