"""In which languages the most influential passages are, and in which layers their influence is."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from babelscope.axes import Float
from babelscope.figures.colour_scales import DIVERGING, SEQUENTIAL
from babelscope.figures.figure_caption import FigureCaption
from babelscope.figures.heat_map_parts import cell_texts, heat_map, titled_axes
from babelscope.figures.style import fixed, language_label, language_name

INFLUENCE_CAPTION = FigureCaption(
    "Languages of the most influential passages",
    "A row per language of the query, a column per language of training text: its share among the most influential "
    "passages. Coloured by how far that is above or below its share of all passages, which is what chance would give.",
)
INFLUENCE_LAYER_CAPTION = FigureCaption(
    "Layers of the influence",
    "Two rows per language of the query: the most influential passages in that language, and those in other languages. "
    "A cell is the share of a layer's MLP in their influence, each passage counted alike; pointed at, it says that "
    "of passages of the same side drawn at random.",
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


def influence_layer_map(
    *,
    shares: Float[np.ndarray, "row layer"],
    random: Float[np.ndarray, "row layer"],
    rows: Sequence[tuple[str, str]],
    layers: Sequence[int],
) -> go.Figure:
    """Share of each layer in the influence of the most influential passages, in percent.

    rows: language of the queries, and which passages. random: the same of passages drawn at random, told when a cell is
    pointed at.
    """
    columns = [str(layer) for layer in layers]
    says = [
        [
            f"{language_name(tag)} queries, passages in {side}, layer {layer}: {100 * share:.1f} % of the influence; "
            f"random passages {100 * chance:.1f} %"
            for layer, share, chance in zip(layers, *values, strict=True)
        ]
        for (tag, side), *values in zip(rows, shares, random, strict=True)
    ]
    figure = heat_map(
        100 * shares,
        rows=[f"{language_label(tag)}, {side}" for tag, side in rows],
        columns=columns,
        text=[[fixed(100 * value, 0) for value in row] for row in shares],
        says=says,
    )
    bar = {"title": {"text": "influence (%)"}}
    figure.update_layout(
        coloraxis={"colorscale": SEQUENTIAL, "cmin": 0, "cmax": 100 * float(shares.max()), "colorbar": bar}
    )
    return titled_axes(figure, x="layer (block, from 0)", y="query, passages", angle=0)
