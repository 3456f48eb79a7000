"""Figure of a dose–response curve with its side effects."""

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from babelscope.figures.figure_caption import FigureCaption
from babelscope.figures.style import BLUE, CYCLE, SYMBOLS, new_figure

OWN, OTHERS = "text of the target", "text of other languages"
SIDE_EFFECTS_CAPTION = FigureCaption(
    "Dose and side effects of steering",
    "Above: answers in the target language by strength, with intervals. Below: the change in bits per byte of other "
    "text with the direction left on; dashed, a random direction as long.",
)
COPIED = {"en-x-numbers": "numbers", "en-x-names": "names", "en-x-code": "code"}


def side_effect_lines(
    *, points: Sequence[Mapping[str, Any]], effects: Sequence[Mapping[str, Any]], layer: int
) -> go.Figure:
    """Success against strength, and below it the change in bits per byte of text with the direction left on.

    points: rows of a sweep with layer, strength and success; those of one layer are drawn.
    effects: rows of `SideEffectPoint`; a line is the mean over targets and texts of one kind.
    layer: where the directions of the effects were added.
    """
    figure = go.Figure(
        make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.09, row_heights=[0.45, 0.55])
    )
    figure.update_layout(new_figure(height=560).layout)
    line = sorted((point for point in points if point["layer"] == layer), key=lambda point: point["strength"])
    figure.add_scatter(
        x=[point["strength"] for point in line],
        y=[100 * point["success"] for point in line],
        name=f"success at layer {layer}",
        mode="lines+markers",
        line={"color": BLUE},
        row=1,
        col=1,
    )
    changes: dict[str, dict[float, list[float]]] = {}
    for row in effects:
        kind = COPIED.get(row["text"]) or (OWN if row["text"] == row["target"] else OTHERS)
        changes.setdefault(kind, {}).setdefault(row["strength"], []).append(row["change"])
    for place, (kind, by_strength) in enumerate(changes.items()):
        strengths = sorted(by_strength)
        figure.add_scatter(
            x=strengths,
            y=[sum(by_strength[strength]) / len(by_strength[strength]) for strength in strengths],
            name=kind,
            mode="lines+markers",
            line={"color": CYCLE[(place + 1) % len(CYCLE)]},
            marker={"symbol": SYMBOLS[place % len(SYMBOLS)]},
            row=2,
            col=1,
        )
    figure.update_xaxes(title={"text": "strength (multiple of the difference of means)"}, row=2, col=1)
    figure.update_yaxes(title={"text": "success (%)"}, range=[-3, 103], row=1, col=1)
    figure.update_yaxes(title={"text": "change (bits per byte)"}, row=2, col=1)
    return figure
