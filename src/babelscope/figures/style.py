"""How every figure looks: palettes, the light and the dark template, language labels, shared axes."""

import functools
import json
from collections.abc import Sequence
from typing import Any, Literal

import langcodes
import numpy as np
import plotly.graph_objects as go
from plotly.io.json import to_json_plotly
from plotly.offline import get_plotlyjs

from babelscope.axes import Float

# Okabe & Ito's colour-blind-safe palette, without black and yellow: neither is legible on both grounds.
BLUE, ORANGE, GREEN, VERMILLION, PURPLE, SKY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9"
CYCLE = (BLUE, ORANGE, GREEN, VERMILLION, PURPLE, SKY)
SYMBOLS = ("circle", "square", "triangle-up", "diamond", "x", "triangle-down")
SEQUENTIAL = "Cividis"
DIVERGING = ((0.0, "#08519C"), (0.25, "#6BAED6"), (0.5, "#F7F5F0"), (0.75, "#FDAE61"), (1.0, "#B35806"))
DARK = {
    BLUE: "#3B8FD4",
    "#08519C": "#6BAED6",
    "#6BAED6": "#2B6CA3",
    "#F7F5F0": "#23272E",
    "#FDAE61": "#A85F16",
    "#B35806": "#FDAE61",
}
"""What a dark page puts in the place of a colour: the diverging scale is turned inside out, blue is lifted."""
FONT = 'system-ui, -apple-system, "Segoe UI", "Noto Sans", Roboto, "Helvetica Neue", Arial, sans-serif'
INK = {"light": ("#22262B", "#626A73", "#E2E4E7"), "dark": ("#E4E6E9", "#9BA3AD", "#343A42")}
"""Text, quiet text, and grid lines, by mode."""
Number = float | int
"""A number as a file may hold it: to a type checker at run time a whole one is no float."""
CELL_TEXT_LIMIT = 20
"""Columns above which a heat map's cells are too narrow for numbers."""


@functools.cache
def page_template(mode: Literal["light", "dark"]) -> go.layout.Template:
    """Template of a mode; a mark without a colour of its own takes the ink of the mode."""
    ink, quiet, grid = INK[mode]
    axis = {
        "gridcolor": grid,
        "zerolinecolor": grid,
        "linecolor": quiet,
        "tickcolor": grid,
        "fixedrange": True,
        "title": {"font": {"size": 12, "color": quiet}, "standoff": 8},
        "automargin": True,
    }
    bar = {"thickness": 10, "outlinewidth": 0, "ticklen": 3, "tickfont": {"size": 10, "color": quiet}}
    return go.layout.Template(
        layout={
            "font": {"family": FONT, "size": 12, "color": ink},
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "colorway": list(CYCLE),
            "xaxis": axis,
            "yaxis": {**axis, "ticklabelstandoff": 5},
            "coloraxis": {"colorbar": {**bar, "title": {"side": "right", "font": {"size": 11, "color": quiet}}}},
            "margin": {"l": 8, "r": 12, "t": 12, "b": 8},
            "legend": {
                "orientation": "h",
                "x": 0,
                "xanchor": "left",
                "y": 1.0,
                "yanchor": "bottom",
                "font": {"size": 11},
            },
            "annotationdefaults": {"font": {"size": 11, "color": quiet}, "showarrow": False},
            "shapedefaults": {"line": {"color": ink, "width": 1.5}},
            "hoverlabel": {"font": {"family": FONT, "size": 12}},
            "dragmode": False,
            "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": grid, "activecolor": quiet},
        },
        data={
            "scatter": [{"marker": {"color": quiet}, "line": {"color": quiet}}],
            "bar": [{"error_x": {"color": ink}}],
        },
    )


def new_figure(*, height: int) -> go.Figure:
    """An empty figure in the light template; height in pixels."""
    return go.Figure(layout={"template": page_template("light"), "height": height})


def language_name(tag: str) -> str:
    """English name of a language, such as `Finnish`."""
    return langcodes.Language.get(tag, normalize=False).display_name()


def language_label(tag: str) -> str:
    """Name beside tag, such as `Finnish (fi)`."""
    return f"{language_name(tag)} ({tag})"


def row_axis(labels: Sequence[str]) -> dict[str, Any]:
    """A y axis with one row a label, the first at the top; marks sit at 0, 1, 2 …"""
    rows = list(range(len(labels)))
    return {
        "tickvals": rows,
        "ticktext": list(labels),
        "range": [len(labels) - 0.5, -0.5],
        "zeroline": False,
        "showgrid": False,
        "ticks": "",
    }


def rows_height(n_rows: int, *, row: int = 25, around: int = 100) -> int:
    """Height in pixels of a figure with a row per language."""
    return max(220, row * n_rows + around)


def arms(
    value: Float[np.ndarray, " row"], low: Float[np.ndarray, " row"], high: Float[np.ndarray, " row"]
) -> dict[str, Any]:
    """Error bars that reach from low to high; rows with no interval have none."""
    return {
        "type": "data",
        "symmetric": False,
        "array": np.nan_to_num(high - value).tolist(),
        "arrayminus": np.nan_to_num(value - low).tolist(),
        "thickness": 1.5,
        "width": 0,
    }


def decimals_for(limit: Number) -> int:
    """Digits behind the point that show a number of this size with two or three figures."""
    if not limit > 0:
        return 0
    return int(np.clip(1 - np.floor(np.log10(limit)), 0, 4))


def fixed(value: Number, digits: int) -> str:
    """A number with a true minus sign; nothing for NaN, and no minus zero."""
    if not np.isfinite(value):
        return ""
    text = f"{value:.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text.replace("-", "−")


def figure_json(figure: go.Figure) -> str:
    """The figure as JSON that is safe inside a script element, without its template (the page has that once)."""
    whole = figure.to_plotly_json()
    whole["layout"].pop("template", None)
    return _inside_script(to_json_plotly(whole) or "")


def template_json(mode: Literal["light", "dark"]) -> str:
    """A mode's template as JSON that is safe inside a script element."""
    return _inside_script(json.dumps(page_template(mode).to_plotly_json()))


def dark_colours_json() -> str:
    """Colours of figures with those that stand for them on a dark page, as JSON."""
    return json.dumps(DARK)


def plotly_script() -> str:
    """Source of plotly.js, as the installed plotly carries it."""
    return get_plotlyjs()


def _inside_script(text: str) -> str:
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
