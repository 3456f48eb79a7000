"""Figures of neurons by language: where keys answer to a concept, and what a dose of them does."""

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go

from babelscope.axes import Float
from babelscope.figures.colour_scales import DIVERGING
from babelscope.figures.heat_map_parts import cell_texts, colour_limit, heat_map, titled_axes
from babelscope.figures.style import CYCLE, QUIET, SYMBOLS, Real, fixed, language_label, language_name, new_figure


def key_map(
    *,
    gap: Float[np.ndarray, "language neuron"],
    answers: np.ndarray,
    neurons: Sequence[str],
    languages: Sequence[str],
    concept: str,
) -> go.Figure:
    """Mean activation with the concept minus without, of each neuron over its largest; answers: cells to outline."""
    share = gap / np.maximum(np.abs(gap).max(axis=0, keepdims=True), 1e-30)
    limit = colour_limit(share)
    figure = heat_map(
        share,
        rows=[language_label(tag) for tag in languages],
        columns=neurons,
        text=[[fixed(value, 1) for value in row] for row in share],
        says=cell_texts(
            [language_name(tag) for tag in languages],
            neurons,
            gap,
            lambda name, neuron, value: f"{name}, neuron {neuron}: mean on {concept} minus on other text {value:.4f}",
        ),
    )
    bar = {"title": {"text": "gap / largest"}}
    figure.update_layout(coloraxis={"colorscale": DIVERGING, "cmin": -limit, "cmax": limit, "colorbar": bar})
    for language, neuron in np.argwhere(answers).tolist():
        ends = {"x0": neuron - 0.5, "x1": neuron + 0.5, "y0": language - 0.5, "y1": language + 0.5}
        figure.add_shape(type="rect", **ends)
    return titled_axes(figure, x="layer.neuron", y="", angle=-90)


def dose_by_language(
    *, doses: Sequence[Real], rise: Mapping[str, Sequence[Real]], control: Sequence[Real], concept: str
) -> go.Figure:
    """Rise of the concept's score by dose, a line for each language; control: of other neurons, mean over languages."""
    figure = new_figure(height=360)
    for number, (tag, values) in enumerate(rise.items()):
        figure.add_scatter(
            x=list(doses),
            y=list(values),
            name=language_label(tag),
            mode="lines+markers",
            line={"color": CYCLE[number % len(CYCLE)]},
            marker={"symbol": SYMBOLS[number % len(SYMBOLS)]},
        )
    dashed = {"color": QUIET, "dash": "dash"}
    figure.add_scatter(x=list(doses), y=list(control), name="neurons as loud", mode="lines", line=dashed)
    figure.update_xaxes(title={"text": "added to the value of every neuron"})
    figure.update_yaxes(title={"text": f"score of {concept}"})
    return figure
