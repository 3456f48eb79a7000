"""In which languages the most influential passages are."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from babelscope.axes import Float
from babelscope.figures.colour_scales import DIVERGING
from babelscope.figures.figure_caption import FigureCaption
from babelscope.figures.heat_maps import cell_texts, heat_map, titled_axes
from babelscope.figures.style import fixed, language_label, language_name

INFLUENCE_CAPTION = FigureCaption(
    "Languages of the most influential passages",
    "A row per language of the query, a column per language of training text: its share among the most influential "
    "passages. Coloured by how far that is above or below its share of all passages, which is what chance would give.",
)


def influence_map(
    *,
    shares: Float[np.ndarray, "query passage"],
    base: Float[np.ndarray, " passage"],
    queries: Sequence[str],
    passages: Sequence[str],
    top: int,
) -> go.Figure:
    """Share of each language of passages among the most influential ones, by language of the query.

    A cell holds the share in percent; its colour is that share less the language's share of all passages, in points.
    """
    points = 100 * (shares - base)
    limit = max(1.0, float(np.abs(points).max()))
    asked, answered = ([language_name(tag) for tag in tags] for tags in (queries, passages))
    says = cell_texts(
        asked,
        answered,
        points,
        lambda query, passage, value: f"{query} queries: {passage} text is {value:+.0f} points above its share",
    )
    figure = heat_map(
        points,
        rows=[language_label(tag) for tag in queries],
        columns=[language_label(tag) for tag in passages],
        text=[[fixed(100 * value, 0) for value in row] for row in shares],
        says=says,
    )
    bar = {"title": {"text": "share less<br>base share<br>(points)"}}
    figure.update_layout(coloraxis={"colorscale": DIVERGING, "cmin": -limit, "cmax": limit, "colorbar": bar})
    return titled_axes(figure, x=f"language of the {top} most influential passages", y="query")
