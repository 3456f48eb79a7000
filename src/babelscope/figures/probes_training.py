"""Figures of what is tracked along a training run."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from babelscope.figures.style import BLUE, CYCLE, SYMBOLS, Number, arms, page_template


class RoleStep(NamedTuple):
    """Neurons of one class at one checkpoint."""

    checkpoint: str
    neurons: int
    share: Number
    """Of all neurons."""
    null: Number
    """With permuted labels."""


def role_history(
    *, shares: Mapping[str, Sequence[RoleStep]], kept: Sequence[tuple[str, Mapping[str, Number]]]
) -> go.Figure:
    """Above: neurons of each class by checkpoint, in %, dotted with permuted labels. Below: sets shared with the last.

    kept: by checkpoint, each language's index with the last checkpoint's set, corrected for chance; the line is their
    mean, the bars reach from the least to the largest.
    """
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.1)
    figure.update_layout(template=page_template(), height=560)
    for at, (role, steps) in enumerate(shares.items()):
        colour, symbol = CYCLE[at % len(CYCLE)], SYMBOLS[at % len(SYMBOLS)]
        x = list(range(len(steps)))
        figure.add_scatter(
            x=x,
            y=[100 * step.share for step in steps],
            mode="lines+markers",
            name=role,
            line={"color": colour, "width": 2},
            marker={"color": colour, "symbol": symbol, "size": 8},
            text=[f"{step.checkpoint}: {step.neurons} neurons" for step in steps],
            hovertemplate="%{text}, %{y:.3f} %<extra></extra>",
            row=1,
            col=1,
        )
        figure.add_scatter(
            x=x,
            y=[100 * step.null for step in steps],
            mode="lines",
            name=f"{role}, permuted labels",
            line={"color": colour, "width": 1.5, "dash": "dot"},
            hovertemplate="permuted labels: %{y:.3f} %<extra></extra>",
            row=1,
            col=1,
        )
    agreements = [[value for value in by_tag.values() if not math.isnan(value)] or [math.nan] for _, by_tag in kept]
    mean, low, high = (np.array([of(values) for values in agreements]) for of in (np.mean, np.min, np.max))
    figure.add_scatter(
        x=list(range(len(kept))),
        y=mean,
        error_y=arms(mean, low, high),
        mode="lines+markers",
        name="sets shared with the last checkpoint, mean over languages",
        line={"color": BLUE, "width": 2},
        marker={"color": BLUE, "size": 8},
        hovertemplate="%{y:.3f}<extra></extra>",
        showlegend=False,
        row=2,
        col=1,
    )
    names = [name for name, _ in kept]
    figure.update_xaxes(tickvals=list(range(len(names))), ticktext=names)
    figure.update_xaxes(title={"text": "checkpoint"}, row=2, col=1)
    figure.update_yaxes(title={"text": "share of neurons (%)"}, rangemode="tozero", row=1, col=1)
    figure.update_yaxes(title={"text": "shared with the last (0 chance)"}, row=2, col=1)
    return figure
