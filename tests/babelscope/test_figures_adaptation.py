"""The figure of an adaptation study shows every run where it was measured."""

from babelscope.figures import FORGETTING_CAPTION, AdaptationRow, adaptation_figure, forgetting_lines, write_figure
from babelscope.figures.adaptation import MARKS, change_bars


def row(kind, language="eu", seed=0, **changes):
    values = {
        "share": 0.01,
        "gain": 0.2,
        "harm": 0.1,
        "curve": [(100, 2.5), (200, 2.25)],
        "moved": {"gate": [3.0, 0.0], "down": [4.0, 1.0]},
        "similarity": [0.9, 0.8],
    }
    return AdaptationRow(kind=kind, language=language, seed=seed, **{**values, **changes})


def traces(figure, name):
    return [trace for trace in figure.data if trace.name == name]


def test_every_run_is_a_mark_at_its_harm_and_gain():
    rows = [row("language", gain=0.3, harm=0.05), row("language", seed=1), row("random", gain=0.1)]
    marks = traces(adaptation_figure(rows=rows), MARKS["language"][2])
    assert [list(mark.x) for mark in marks] == [[0.05, 0.1]] and [list(mark.y) for mark in marks] == [[0.3, 0.2]]


def test_a_language_has_a_column_and_a_kind_one_place_in_the_legend():
    rows = [row(kind, language) for kind in MARKS for language in ("eu", "cy", "tt")]
    figure = adaptation_figure(rows=rows)
    shown = [trace.name for trace in figure.data if trace.showlegend]
    assert shown == [name for _, _, name in MARKS.values()]
    assert [note.text for note in figure.layout.annotations] == ["Basque (eu)", "Welsh (cy)", "Tatar (tt)"]


def test_lines_are_means_over_seeds_and_lengths_over_roles():
    rows = [row("language", seed=0), row("language", seed=1, curve=[(100, 2.0), (200, 1.75)])]
    figure = adaptation_figure(rows=rows)
    lines = {trace.yaxis: list(trace.y) for trace in figure.data if trace.mode == "lines+markers"}
    assert lines["y2"] == [2.25, 2.0]
    assert lines["y3"] == [5.0, 1.0]
    assert lines["y4"] == [0.9, 0.8]


def test_kinds_differ_in_symbol_so_that_colour_is_not_needed():
    assert len({(colour, symbol) for colour, symbol, _ in MARKS.values()}) == len(MARKS)
    assert len({symbol for _, symbol, _ in MARKS.values()}) == len(MARKS)


def test_methods_that_leave_the_weights_have_no_line_of_change():
    figure = adaptation_figure(rows=[row("lora", moved=None)])
    assert not [trace for trace in figure.data if trace.yaxis == "y3"]


def test_what_each_language_lost_is_a_line_over_the_tokens_and_the_bound_is_dotted():
    figure = forgetting_lines(course=[(100, {"en": 0.1, "fi": 0.0}), (200, {"en": 0.3, "fi": -0.1})], bound=0.2)
    assert {trace.name: list(trace.y) for trace in figure.data} == {
        "English (en)": [0.1, 0.3],
        "Finnish (fi)": [0.0, -0.1],
    }
    assert all(list(trace.x) == [100, 200] for trace in figure.data)
    assert [(shape.y0, shape.line.dash) for shape in figure.layout.shapes] == [(0.2, "dot")]


def test_the_same_figure_is_written_as_the_same_bytes(tmp_path):
    figure = adaptation_figure(rows=[row("language")])
    first, second = (
        write_figure(figure, tmp_path / f"{name}.html", FORGETTING_CAPTION).read_bytes() for name in ("a", "b")
    )
    assert first == second


def test_the_trained_language_is_the_first_bar_and_the_others_stand_by_their_change():
    (bars,) = change_bars(change={"en": 0.02, "eu": -0.5, "fi": -0.01}, trained="eu").data
    assert list(bars.x) == [-0.5, -0.01, 0.02]
    assert "Basque" in bars.hovertext[0]
