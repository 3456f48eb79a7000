"""Figures of specific, related and general neurons: by block, by layer, along a training run."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from babelscope.axes import Float
from babelscope.figures.style import BLUE, CYCLE, SYMBOLS, VERMILLION, Real, arms, new_figure, page_template


class RoleStep(NamedTuple):
    """Neurons of one class at one checkpoint."""

    checkpoint: str
    neurons: int
    share: Real
    """Of all neurons."""
    null: Real
    """With permuted labels."""


def role_history(
    *, shares: Mapping[str, Sequence[RoleStep]], kept: Sequence[tuple[str, Mapping[str, Real]]]
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


class RoleBar(NamedTuple):
    """Share of one class in one block of layers."""

    block: str
    role: str
    share: Real
    null: Real
    """With permuted labels."""


def role_bars(*, bars: Sequence[RoleBar], of: str = "selected") -> go.Figure:
    """Specific, related and general neurons by block of layers, in % of its neurons; a mark shows permuted labels.

    of: which neurons are counted, such as "selected" or "above the bar"; stands in the axis title.
    """
    figure = new_figure(height=340)
    blocks = list(dict.fromkeys(bar.block for bar in bars))
    roles = list(dict.fromkeys(bar.role for bar in bars))
    width = 0.8 / len(roles)
    for place, role in enumerate(roles):
        bars_of_role = [bar for bar in bars if bar.role == role]
        x = [blocks.index(bar.block) + (place - (len(roles) - 1) / 2) * width for bar in bars_of_role]
        figure.add_bar(
            x=x, y=[100 * bar.share for bar in bars_of_role], width=width * 0.9, name=role, marker={"opacity": 0.7}
        )
        figure.add_scatter(
            x=x,
            y=[100 * bar.null for bar in bars_of_role],
            mode="markers",
            name="permuted labels",
            legendgroup="null",
            showlegend=place == 0,
            marker={"symbol": "line-ew", "size": 14, "line": {"width": 2, "color": VERMILLION}},
            hovertemplate="permuted labels: %{y:.3f} %<extra></extra>",
        )
    figure.update_xaxes(tickvals=list(range(len(blocks))), ticktext=blocks, title={"text": "layers"})
    figure.update_yaxes(title={"text": f"{of}, share of the block's neurons (%)"}, rangemode="tozero")
    return figure


def role_profile(
    *, profile: Float[np.ndarray, "layer role"], roles: Sequence[str], starts: Sequence[int] = ()
) -> go.Figure:
    """Neurons of each class by layer, in % of the layer's neurons above the bar; dashed: where a part begins."""
    figure = new_figure(height=340)
    for column, role in enumerate(roles):
        figure.add_scatter(
            x=list(range(len(profile))),
            y=100 * profile[:, column],
            mode="lines+markers",
            name=role,
            line={"color": CYCLE[column], "width": 2},
            marker={"color": CYCLE[column], "symbol": SYMBOLS[column], "size": 7},
            hovertemplate=f"{role}, layer %{{x}}: %{{y:.3f}} %<extra></extra>",
        )
    for start in starts:
        figure.add_vline(x=start - 0.5, line={"width": 1.5, "dash": "dash"})
    figure.update_xaxes(title={"text": "layer (block, from 0)"})
    figure.update_yaxes(title={"text": "above the bar, share of the layer's neurons (%)"}, rangemode="tozero")
    return figure
