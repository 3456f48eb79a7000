"""Figures of the probes of representations: lens, alignment, language identification, subspaces, tree, embeddings."""

import html
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from babelscope.axes import Float
from babelscope.figures.colour_scales import SEQUENTIAL
from babelscope.figures.heat_map_parts import cell_texts, heat_map, titled_axes
from babelscope.figures.style import (
    BLUE,
    CYCLE,
    ORANGE,
    SYMBOLS,
    Real,
    arms,
    decimals_for,
    fixed,
    language_label,
    language_name,
    new_figure,
    page_template,
    row_axis,
    rows_height,
)

DEPTH_AXIS = "residual stream after layer (in: before the first)"


class DepthLine(NamedTuple):
    """One measure along the depth of a model."""

    name: str
    value: Sequence[Real]
    low: Sequence[Real] = ()
    """Lower ends of the intervals; none are drawn where empty."""
    high: Sequence[Real] = ()
    control: bool = False
    """Drawn quiet and dashed."""


class ScriptBar(NamedTuple):
    """A share with its interval, beside what chance gives."""

    label: str
    value: Real
    low: Real
    high: Real
    null: Real


def depth_labels(depths: int) -> list[str]:
    """What stands under each depth: "in", then layers from 0."""
    return ["in", *(str(layer) for layer in range(depths - 1))]


def depth_lines(*, panels: Mapping[str, Sequence[DepthLine]], floor: Real | None = 0) -> go.Figure:
    """Lines over the depth of the model, one panel under the other, each with the unit it is given under.

    floor: where each y axis starts; None lets it follow the data. Lines of one name share a colour over the panels.
    """
    figure = make_subplots(rows=len(panels), cols=1, shared_xaxes=True, vertical_spacing=0.09)
    figure.update_layout(template=page_template(), height=110 + 250 * len(panels))
    lines = [line for panel in panels.values() for line in panel]
    names = list(dict.fromkeys(line.name for line in lines if not line.control))
    named_lines: set[str] = set()
    for row, (unit, panel) in enumerate(panels.items(), start=1):
        for line in panel:
            _add_line(figure, line, names, row=row, legend=line.name not in named_lines)
            named_lines.add(line.name)
        figure.update_yaxes(
            title={"text": unit},
            rangemode="normal" if floor is None else "tozero",
            exponentformat="none",
            row=row,
            col=1,
        )
    depths = len(lines[0].value)
    ticks = list(range(depths))
    figure.update_xaxes(tickvals=ticks, ticktext=depth_labels(depths), range=[-0.3, depths - 0.7])
    figure.update_xaxes(title={"text": DEPTH_AXIS}, row=len(panels), col=1)
    return figure


def depth_map(
    *,
    value: Float[np.ndarray, "row depth"],
    p: Float[np.ndarray, "row depth"] | None = None,
    languages: Sequence[str],
    unit: str,
    top: Real | None = None,
) -> go.Figure:
    """One measure by language (rows) and depth (columns); in brackets where p > 0.05 against the control."""
    limit = float(np.nanmax(value, initial=0.0)) if top is None else float(top)
    digits = min(2, decimals_for(limit)) if limit > 0.1 else decimals_for(limit)
    sure = np.ones(value.shape, dtype=bool) if p is None else p <= 0.05
    text = [
        [
            fixed(cell, digits) if beats_control else f"({fixed(cell, digits)})"
            for cell, beats_control in zip(row, marks, strict=True)
        ]
        for row, marks in zip(value, sure, strict=True)
    ]
    figure = heat_map(
        value,
        rows=[language_label(tag) for tag in languages],
        columns=depth_labels(value.shape[1]),
        text=text,
        says=cell_texts(
            [language_name(tag) for tag in languages],
            depth_labels(value.shape[1]),
            value,
            lambda name, depth, cell: f"{name}, {depth}: {unit} {cell:.4f}",
        ),
    )
    bar = {"title": {"text": unit}}
    figure.update_layout(coloraxis={"colorscale": SEQUENTIAL, "cmin": 0, "cmax": limit or 1.0, "colorbar": bar})
    return titled_axes(figure, x=DEPTH_AXIS, y="", angle=0)


def latent_language_map(
    *,
    share: Float[np.ndarray, "language depth"],
    leading: Sequence[Sequence[str]],
    languages: Sequence[str],
    unit: str = "share of the leading other language",
) -> go.Figure:
    """Which language but the text's own leads in the lens, by text and depth: its tag, its share as colour."""
    figure = heat_map(
        share,
        rows=[language_label(tag) for tag in languages],
        columns=depth_labels(share.shape[1]),
        text=leading,
        says=[
            [
                f"{language_name(tag)} text, {depth}: {first} leads with share {cell:.3f}"
                for depth, first, cell in zip(depth_labels(share.shape[1]), firsts, line, strict=True)
            ]
            for tag, firsts, line in zip(languages, leading, share, strict=True)
        ],
    )
    bar = {"title": {"text": unit}}
    top = float(np.nanmax(share, initial=0.0)) or 1.0
    figure.update_layout(coloraxis={"colorscale": SEQUENTIAL, "cmin": 0, "cmax": top, "colorbar": bar})
    return titled_axes(figure, x=DEPTH_AXIS, y="language of the text", angle=0)


def similarity_dendrogram(
    *, linkage: Float[np.ndarray, "merge 4"], languages: Sequence[str], groups: Sequence[str], unit: str = "1 − cosine"
) -> go.Figure:
    """A tree of languages by average linkage, leaves at the left, coloured by group (family) with the group's name.

    linkage: scipy's form, two clusters, their distance, the new size.
    """
    order = _leaf_order(linkage, len(languages))
    place = {leaf: (0.0, float(row)) for row, leaf in enumerate(order)}
    figure = new_figure(height=rows_height(len(languages), row=24, around=110))
    x: list[float | None] = []
    y: list[float | None] = []
    for merge, (first_node, second_node, height, _) in enumerate(linkage.tolist(), start=len(languages)):
        (left, first), (right, second) = place[int(first_node)], place[int(second_node)]
        x += [left, height, height, right, None]
        y += [first, first, second, second, None]
        place[merge] = (height, (first + second) / 2)
    figure.add_scatter(x=x, y=y, mode="lines", line={"width": 1.5}, hoverinfo="skip", showlegend=False)
    kinds = list(dict.fromkeys(groups[leaf] for leaf in order))
    single_kinds = [kind for kind in kinds if list(groups).count(kind) == 1]
    for at, kind in enumerate(kind for kind in kinds if kind not in single_kinds):
        leaves = [leaf for leaf in order if groups[leaf] == kind]
        _add_leaves(figure, leaves, order, languages, groups, kind, CYCLE[at % len(CYCLE)], SYMBOLS[at % len(SYMBOLS)])
    if single_kinds:
        leaves = [leaf for leaf in order if groups[leaf] in single_kinds]
        _add_leaves(figure, leaves, order, languages, groups, "only one of its family", "#8A929B", "circle-open")
    labels = [language_label(languages[leaf]) for leaf in order]
    figure.update_layout(yaxis=row_axis(labels))
    top = float(linkage[:, 2].max())
    figure.update_xaxes(title={"text": unit}, range=[-0.02 * top, 1.04 * top])
    return figure


def embedding_bars(*, bars: Sequence[ScriptBar], unit: str) -> go.Figure:
    """Shares with their intervals, one row each, and a mark where chance lies."""
    rows = list(range(len(bars)))
    figure = new_figure(height=rows_height(len(bars), row=30, around=120))
    value, low, high, null = (
        100 * np.array([getattr(bar, field) for bar in bars], dtype=np.float64)
        for field in ("value", "low", "high", "null")
    )
    figure.add_bar(
        x=value,
        y=rows,
        orientation="h",
        name="measured",
        marker={"color": BLUE, "opacity": 0.55},
        error_x=arms(value, low, high),
        hovertemplate="%{x:.1f} %<extra></extra>",
    )
    marker = {"symbol": "line-ns", "size": 16, "line": {"width": 3, "color": ORANGE}}
    figure.add_scatter(x=null, y=rows, mode="markers", name="chance", marker=marker)
    figure.update_layout(yaxis=row_axis([bar.label for bar in bars]), bargap=0.4)
    figure.update_xaxes(title={"text": unit}, range=[0, 103])
    return figure


def language_pair_map(
    *, value: Float[np.ndarray, "language language"], languages: Sequence[str], unit: str
) -> go.Figure:
    """A measure of each two languages between 0 and 1, such as a divergence in bits or a share in common."""
    names = [language_name(tag) for tag in languages]
    labels = [language_label(tag) for tag in languages]
    figure = heat_map(
        value,
        rows=labels,
        columns=labels,
        text=[[fixed(cell, 2) for cell in row] for row in value],
        says=cell_texts(names, names, value, lambda one, other, cell: f"{one} and {other}: {cell:.3f}"),
    )
    bar = {"title": {"text": unit}}
    figure.update_layout(coloraxis={"colorscale": SEQUENTIAL, "cmin": 0, "cmax": 1, "colorbar": bar})
    return titled_axes(figure, x="", y="")


def _add_line(figure: go.Figure, line: DepthLine, names: Sequence[str], *, row: int, legend: bool) -> None:
    x = list(range(len(line.value)))
    value = np.array(line.value, dtype=np.float64)
    at = 0 if line.control else names.index(line.name)
    colour = "#8A929B" if line.control else CYCLE[at % len(CYCLE)]
    symbol = "line-ew" if line.control else SYMBOLS[at % len(SYMBOLS)]
    ends = [np.array(end, dtype=np.float64) for end in (line.low, line.high)] if len(line.low) else []
    figure.add_scatter(
        x=x,
        y=value,
        mode="lines" if line.control else "lines+markers",
        name=line.name,
        legendgroup=line.name,
        showlegend=legend,
        line={"color": colour, "width": 2, "dash": "dot" if line.control else "solid"},
        marker={"color": colour, "symbol": symbol, "size": 8},
        error_y=arms(value, *ends) if ends else None,
        hovertemplate=f"{html.escape(line.name)}<br>depth %{{x}}: %{{y:.4~g}}<extra></extra>",
        cliponaxis=False,
        row=row,
        col=1,
    )


def _add_leaves(
    figure: go.Figure,
    leaves: Sequence[int],
    order: Sequence[int],
    languages: Sequence[str],
    groups: Sequence[str],
    name: str,
    colour: str,
    symbol: str,
) -> None:
    figure.add_scatter(
        x=[0.0] * len(leaves),
        y=[order.index(leaf) for leaf in leaves],
        mode="markers",
        name=name,
        marker={"color": colour, "symbol": symbol, "size": 10},
        text=[f"{language_name(languages[leaf])}: {groups[leaf]}" for leaf in leaves],
        hovertemplate="%{text}<extra></extra>",
    )


def _leaf_order(linkage: Float[np.ndarray, "merge 4"], leaves: int) -> list[int]:
    """Leaves from top to bottom, so that no two branches cross."""
    members = [[leaf] for leaf in range(leaves)]
    for first_node, second_node, _, _ in linkage.tolist():
        members.append(members[int(first_node)] + members[int(second_node)])
    return members[-1]
