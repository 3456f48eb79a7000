"""Figures about the neuron sets themselves: size, stability, the need for text, script."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go

from babelscope.axes import Float
from babelscope.figures.style import (
    BLUE,
    PURPLE,
    SKY,
    VERMILLION,
    arms,
    between,
    language_label,
    language_name,
    new_figure,
    row_axis,
    rows_height,
)


class CorpusSizePoint(NamedTuple):
    """Agreement of a language's set with the set from the whole text, at a share of the text."""

    share: float
    """Share of the text used, in (0, 1]."""
    language: str
    """Tag."""
    jaccard: float
    """|A ∩ B| / |A ∪ B| with the set from all text; NaN where undefined."""
    chance: float
    """The Jaccard index that sets of these sizes have by chance."""


class Retention(NamedTuple):
    """Share of a language's set that stays active on five versions of text, and how much of it is script."""

    native: float
    """Held-out text in its own script: the ceiling."""
    romanised: float
    """The same text in Latin letters."""
    shuffled_words: float
    """The same text with its words shuffled: script kept, syntax broken."""
    english: float
    """English text: the floor."""
    layer_matched: float
    """Random neurons of the same layers, on native text."""
    share: float
    """(native − romanised) / (native − english), clipped to [0, 1]."""
    low: float
    """Lower end of the share's 95 % interval."""
    high: float
    """Upper end of the share's 95 % interval."""


def set_sizes(
    *, sizes: Float[np.ndarray, " language"], intervals: Float[np.ndarray, "language 2"], languages: Sequence[str]
) -> go.Figure:
    """Neurons in each language's set, with bootstrap intervals where they are known (NaN where not)."""
    low, high = intervals[:, 0], intervals[:, 1]
    figure = new_figure(height=rows_height(len(languages), row=30, around=130))
    figure.add_bar(
        x=sizes,
        y=list(range(len(languages))),
        orientation="h",
        marker={"color": BLUE, "opacity": 0.75},
        error_x=arms(sizes, low, high),
        hovertext=[
            f"{language_name(tag)}: {size:.0f} neurons{between(a, b, 0)}"
            for tag, size, a, b in zip(languages, sizes, low, high, strict=True)
        ],
        hoverinfo="text",
    )
    figure.update_layout(
        yaxis=row_axis([language_label(tag) for tag in languages]),
        xaxis={"title": {"text": "neurons in the set"}, "rangemode": "tozero"},
        bargap=0.35,
    )
    return figure


def stability_ranges(
    *,
    median: Float[np.ndarray, " language"],
    low: Float[np.ndarray, " language"],
    high: Float[np.ndarray, " language"],
    chance: Float[np.ndarray, " language"],
    languages: Sequence[str],
) -> go.Figure:
    """Jaccard index of sets found in two halves of the text: median and range over splits, beside chance."""
    rows = list(range(len(languages)))
    figure = new_figure(height=rows_height(len(languages), row=26, around=110))
    figure.add_scatter(
        x=median,
        y=rows,
        mode="markers",
        name="median, range over half-splits",
        marker={"color": BLUE, "size": 9},
        error_x=arms(median, low, high),
        hovertext=[
            f"{language_name(tag)}: Jaccard index {at:.3f}{between(a, b, 3)}"
            for tag, at, a, b in zip(languages, median, low, high, strict=True)
        ],
        hoverinfo="text",
    )
    figure.add_scatter(
        x=chance,
        y=rows,
        mode="markers",
        name="chance",
        marker={"symbol": "line-ns", "size": 11, "line": {"width": 2, "color": VERMILLION}},
        hovertext=[f"{language_name(tag)}, by chance: {at:.3f}" for tag, at in zip(languages, chance, strict=True)],
        hoverinfo="text",
    )
    figure.update_layout(
        yaxis={**row_axis([language_label(tag) for tag in languages]), "showgrid": True},
        xaxis={"title": {"text": "Jaccard index (0 nothing shared, 1 the same set)"}, "range": [-0.02, 1.02]},
    )
    return figure


def corpus_size_lines(*, points: Sequence[CorpusSizePoint]) -> go.Figure:
    """Agreement with the set from all text, by the share of the text used: a thin line per language, the median "
    "bold."""
    figure = new_figure(height=400)
    tags = list(dict.fromkeys(point.language for point in points))
    for tag in tags:
        line = sorted(point for point in points if point.language == tag)
        figure.add_scatter(
            x=[100 * point.share for point in line],
            y=[point.jaccard for point in line],
            mode="lines",
            name="one language",
            legendgroup="one language",
            showlegend=tag == tags[0],
            line={"width": 1},
            opacity=0.55,
            hovertext=[
                f"{language_name(tag)}, {100 * point.share:g} % of the text: Jaccard index {point.jaccard:.3f}"
                for point in line
            ],
            hoverinfo="text",
        )
    shares = sorted({point.share for point in points})
    for field, name, style in (
        ("jaccard", "median over languages", {"color": BLUE, "width": 3}),
        ("chance", "chance (median)", {"color": VERMILLION, "width": 2, "dash": "dash"}),
    ):
        middle = [_median([getattr(point, field) for point in points if point.share == share]) for share in shares]
        figure.add_scatter(
            x=[100 * share for share in shares], y=middle, mode="lines+markers", name=name, line=style,
            marker={"color": style["color"], "size": 6}, hoverinfo="text",
            hovertext=[f"{name}, {100 * share:g} % of the text: {at:.3f}"
                       for share, at in zip(shares, middle, strict=True)],
        )  # fmt: skip
    figure.update_layout(
        xaxis={"title": {"text": "text used (% of the tokens)"}},
        yaxis={"title": {"text": "Jaccard index with the full set"}, "range": [-0.02, 1.02]},
    )
    return figure


def script_retention(*, rows: Sequence[tuple[str, Retention]]) -> go.Figure:
    """Share of each set still active, in %, on native, shuffled, romanised and English text."""
    figure = new_figure(height=rows_height(len(rows), row=34, around=120))
    marks = (
        ("native", "native text (ceiling)", {"color": BLUE, "symbol": "circle", "size": 11}),
        ("shuffled_words", "words shuffled", {"color": SKY, "symbol": "square", "size": 9}),
        ("romanised", "romanised", {"color": VERMILLION, "symbol": "diamond", "size": 12}),
        ("english", "English text (floor)", {"color": PURPLE, "symbol": "triangle-up", "size": 9}),
        ("layer_matched", "random neurons, same layers", {"symbol": "x-thin", "size": 8, "line": {"width": 2}}),
    )
    for field, name, marker in marks:
        figure.add_scatter(
            x=[100 * getattr(values, field) for _, values in rows],
            y=list(range(len(rows))),
            mode="markers",
            name=name,
            marker=marker,
            hovertext=[
                f"{language_name(tag)}, {name}: {100 * getattr(values, field):.1f} % still active"
                for tag, values in rows
            ],
            hoverinfo="text",
        )
    figure.update_layout(
        yaxis={**row_axis([language_label(tag) for tag, _ in rows]), "showgrid": True},
        xaxis={"title": {"text": "neurons of the set still active (%)"}, "range": [-3, 103]},
    )
    return figure


def script_share_bars(*, rows: Sequence[tuple[str, Retention | None]]) -> go.Figure:
    """Share of a set's response that goes with the script, in %, with its interval; None is "not applicable"."""
    figure = new_figure(height=rows_height(len(rows), row=26, around=90))
    applicable = [(row, values) for row, (_, values) in enumerate(rows) if values is not None]
    share, low, high = (
        np.array([100 * getattr(values, field) for _, values in applicable], dtype=np.float64)
        for field in ("share", "low", "high")
    )
    figure.add_scatter(
        x=share,
        y=[row for row, _ in applicable],
        mode="markers",
        marker={"color": VERMILLION, "size": 10, "symbol": "diamond"},
        error_x=arms(share, low, high),
        hovertext=[
            f"{language_name(rows[row][0])}: script's share {at:.0f} %{between(a, b, 0)}"
            for (row, _), at, a, b in zip(applicable, share, low, high, strict=True)
        ],
        hoverinfo="text",
    )
    for row, (_, values) in enumerate(rows):
        if values is None:
            figure.add_annotation(x=2, y=row, text="not applicable", xanchor="left", showarrow=False)
    figure.update_layout(
        yaxis=row_axis([language_label(tag) for tag, _ in rows]),
        xaxis={"title": {"text": "share of the response that is script (%)"}, "range": [-3, 103]},
        showlegend=False,
    )
    return figure


def _median(values: Sequence[float]) -> float:
    finite = [value for value in values if np.isfinite(value)]
    return float(np.median(finite)) if finite else float("nan")
