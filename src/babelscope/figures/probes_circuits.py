"""Figures of circuits: what each head carries in each language, and in two languages at once."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from babelscope.axes import Float
from babelscope.figures.colour_scales import DIVERGING
from babelscope.figures.heat_map_parts import cell_texts, colour_limit, heat_map, titled_axes
from babelscope.figures.style import fixed


def head_effect_map(
    *,
    effect: Float[np.ndarray, "map head"],
    maps: Sequence[str],
    heads: Sequence[tuple[int, int]],
    whole: str = "the difference",
) -> go.Figure:
    """Share, in %, of the logit difference, or of another whole, that each head has.

    A row a task and language, a column a head.
    """
    percent = 100 * effect
    limit = colour_limit(percent)
    columns = [f"{layer}.{head}" for layer, head in heads]
    figure = heat_map(
        percent,
        rows=list(maps),
        columns=columns,
        text=[[fixed(value, 0) if abs(value) >= 1 else "" for value in row] for row in percent],
        says=cell_texts(list(maps), columns, percent, lambda name, head, value: f"{name}, head {head}: {value:.1f} %"),
    )
    bar = {"title": {"text": f"of {whole} (%)"}}
    figure.update_layout(coloraxis={"colorscale": DIVERGING, "cmin": -limit, "cmax": limit, "colorbar": bar})
    return titled_axes(figure, x="layer.head", y="", angle=-90)
