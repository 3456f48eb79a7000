"""The lens of several models in one figure, over shares of their depths."""

import html
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from babelscope.figures.style import CYCLE, SYMBOLS, Real, language_name, page_template


class LensCourse(NamedTuple):
    """What one model gives the right word at each depth, from the embeddings to the last layer."""

    model: str
    target: Sequence[Real]
    """In the language that is to be said."""
    pivot: Sequence[Real]
    """In the language compared with."""
    null: Sequence[Real]
    """Words of other concepts, in the language that is to be said."""


def lens_overlay(*, panels: Mapping[str, Sequence[LensCourse]], pivot: str) -> go.Figure:
    """A panel a task, a colour a model: the right word in the target's language solid, in the pivot's dashed.

    Depths are shares, 0 before the first layer and 1 after the last, so that models of other depths lie over each
    other. The control is dotted.
    """
    figure = make_subplots(
        rows=len(panels), cols=1, shared_xaxes=True, vertical_spacing=0.12, subplot_titles=list(panels)
    )
    figure.update_layout(template=page_template(), height=130 + 260 * len(panels))
    models = list(dict.fromkeys(course.model for courses in panels.values() for course in courses))
    shown: set[str] = set()
    for row, courses in enumerate(panels.values(), start=1):
        for course in courses:
            at = models.index(course.model)
            for what, values, dash in (
                ("the target's language", course.target, "solid"),
                (language_name(pivot), course.pivot, "dash"),
                ("words of other concepts", course.null, "dot"),
            ):
                name = f"{course.model}: {what}"
                colour = CYCLE[at % len(CYCLE)]
                figure.add_scatter(
                    x=[depth / (len(values) - 1) for depth in range(len(values))],
                    y=list(values),
                    mode="lines+markers" if dash == "solid" else "lines",
                    name=name,
                    legendgroup=name,
                    showlegend=name not in shown,
                    line={"color": colour, "width": 2, "dash": dash},
                    marker={"color": colour, "symbol": SYMBOLS[at % len(SYMBOLS)], "size": 7},
                    hovertemplate=f"{html.escape(name)}<br>at %{{x:.2f}} of the depth: %{{y:.4~g}}<extra></extra>",
                    cliponaxis=False,
                    row=row,
                    col=1,
                )
                shown.add(name)
        figure.update_yaxes(title={"text": "probability"}, rangemode="tozero", exponentformat="none", row=row, col=1)
    figure.update_xaxes(tickvals=[0, 0.25, 0.5, 0.75, 1], range=[-0.02, 1.02])
    figure.update_xaxes(title={"text": "share of the depth"}, row=len(panels), col=1)
    return figure
