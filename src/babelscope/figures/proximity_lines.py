"""The figure of what related languages share, by layer."""

from collections.abc import Mapping

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from babelscope.axes import Float
from babelscope.figures.style import BLUE, ORANGE, page_template


def proximity_lines(
    *,
    overlap: Float[np.ndarray, "layer language language"],
    correlation: Mapping[int, float],
    p: Mapping[int, float],
) -> go.Figure:
    """Above: intersection over union of two languages' neurons by layer, mean over pairs, the bars from least to most.
    Below: its rank correlation with how closely they are related; filled where p ≤ 0.05.
    """
    pairs = np.triu_indices(overlap.shape[1], 1)
    shared = overlap[:, pairs[0], pairs[1]]
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.1)
    figure.update_layout(template=page_template(), height=460, showlegend=False)
    mean = shared.mean(axis=1)
    figure.add_scatter(
        x=list(range(len(mean))),
        y=mean,
        error_y={"array": shared.max(axis=1) - mean, "arrayminus": mean - shared.min(axis=1)},
        mode="lines+markers",
        line={"color": BLUE},
        hovertemplate="layer %{x}: %{y:.3f}<extra></extra>",
        row=1,
        col=1,
    )
    figure.add_scatter(
        x=list(correlation),
        y=list(correlation.values()),
        mode="lines+markers",
        line={"color": ORANGE},
        marker={"symbol": ["circle" if p[layer] <= 0.05 else "circle-open" for layer in correlation], "size": 9},
        text=[f"p {p[layer]:.4f}" for layer in correlation],
        hovertemplate="layer %{x}: %{y:.3f}, %{text}<extra></extra>",
        row=2,
        col=1,
    )
    figure.update_xaxes(title={"text": "layer (block, from 0)"}, row=2, col=1)
    figure.update_yaxes(title={"text": "shared (IoU)"}, row=1, col=1)
    figure.update_yaxes(title={"text": "correlation with relation"}, row=2, col=1)
    return figure
