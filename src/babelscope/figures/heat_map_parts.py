"""One heat map, and what every kind of it is made with: texts of cells, limits of colours, titles of axes."""

from collections.abc import Callable, Sequence

import numpy as np
import plotly.graph_objects as go

from babelscope.axes import Float
from babelscope.figures.style import (
    CELL_TEXT_LIMIT,
    new_figure,
    rows_height,
)


def colour_limit(values: Float[np.ndarray, "..."]) -> float:
    """Where the colours of a diverging map saturate: the 98.5th percentile of the absolute values, never 0."""
    sizes = np.abs(values[np.isfinite(values)])
    limit = float(np.quantile(sizes, 0.985)) if sizes.size else 0.0
    return limit or (float(sizes.max(initial=0.0)) or 1.0)


def heat_map(
    z: Float[np.ndarray, "row column"],
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    text: Sequence[Sequence[str]],
    says: Sequence[Sequence[str]],
) -> go.Figure:
    """One heat map, its first row at the top; text: written in a cell; says: what it says when pointed at."""
    fits = len(columns) <= CELL_TEXT_LIMIT
    figure = new_figure(height=rows_height(len(rows), row=30, around=130))
    axis = {"type": "category", "showgrid": False, "ticks": ""}
    figure.update_layout(
        xaxis={**axis, "range": [-0.5, len(columns) - 0.5]}, yaxis={**axis, "range": [len(rows) - 0.5, -0.5]}
    )
    figure.add_heatmap(
        z=z,
        x=list(columns),
        y=list(rows),
        text=np.where(np.isfinite(z), np.array(text), ""),
        texttemplate="%{text}" if fits else None,
        textfont={"size": 10},
        hovertext=says,
        hoverinfo="text",
        coloraxis="coloraxis",
        xgap=1,
        ygap=1,
    )
    # A cell without a colour shows the page: its number takes the ink of the page.
    bare = [(row, column) for row, column in np.argwhere(~np.isfinite(z)).tolist() if text[row][column]]
    if fits and bare:
        figure.add_scatter(
            x=[columns[column] for _, column in bare],
            y=[rows[row] for row, _ in bare],
            text=[text[row][column] for row, column in bare],
            mode="text",
            textfont={"size": 10},
            hoverinfo="skip",
            showlegend=False,
        )
    return figure


def cell_texts(
    rows: Sequence[str],
    columns: Sequence[str],
    values: Float[np.ndarray, "row column"],
    say: Callable[[str, str, float], str],
) -> list[list[str]]:
    """What each cell of a map says, from the names of its row and its column and its value; nothing without one."""
    return [
        [
            say(row, column, float(value)) if np.isfinite(value) else ""
            for column, value in zip(columns, line, strict=True)
        ]
        for row, line in zip(rows, values, strict=True)
    ]


def outlined_diagonal(figure: go.Figure, size: int) -> go.Figure:
    """The figure of a square map with a line around each cell of a language with itself."""
    for place in range(size):
        figure.add_shape(type="rect", x0=place - 0.5, x1=place + 0.5, y0=place - 0.5, y1=place + 0.5)
    return figure


def titled_axes(figure: go.Figure, *, x: str, y: str, angle: int = -50) -> go.Figure:
    """The figure with titles at both axes; angle: of the marks at the lower one, in degrees."""
    figure.update_xaxes(title={"text": x}, tickangle=angle)
    figure.update_yaxes(title={"text": y})
    return figure
