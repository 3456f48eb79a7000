"""How every figure looks: palette, template, language labels, shared axes."""

import functools
import re
from collections.abc import Sequence
from typing import Any

import langcodes
import numpy as np
import plotly.graph_objects as go

from babelscope.axes import Float

# Okabe & Ito's colour-blind-safe palette, without black and yellow: neither is legible on both grounds.
BLUE, ORANGE, GREEN, VERMILLION, PURPLE, SKY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9"
CYCLE = (BLUE, ORANGE, GREEN, VERMILLION, PURPLE, SKY)
SYMBOLS = ("circle", "square", "triangle-up", "diamond", "x", "triangle-down")
FONT = 'system-ui, -apple-system, "Segoe UI", "Noto Sans", Roboto, "Helvetica Neue", Arial, sans-serif'
INK, QUIET, GRID = "#22262B", "#626A73", "#E2E4E7"
"""Text, quiet text, and grid lines."""
Real = float | int
"""A number as a file may hold it: to a type checker at run time a whole one is no float."""
LABEL = re.compile(r".+ \(([A-Za-z]{2,3}(?:-[A-Za-z0-9]+)*)\)")
"""A name with its tag, as `language_label` writes it."""
CELL_TEXT_LIMIT = 20
"""Columns above which a heat map's cells are too narrow for numbers."""


@functools.cache
def page_template() -> go.layout.Template:
    """Template of every figure; a mark without a colour of its own is drawn in quiet ink."""
    axis = {
        "gridcolor": GRID,
        "zerolinecolor": GRID,
        "linecolor": QUIET,
        "tickcolor": GRID,
        "fixedrange": True,
        "title": {"font": {"size": 12, "color": QUIET}, "standoff": 8},
        "automargin": True,
    }
    bar = {"thickness": 10, "outlinewidth": 0, "ticklen": 3, "tickfont": {"size": 10, "color": QUIET}}
    return go.layout.Template(
        layout={
            "font": {"family": FONT, "size": 12, "color": INK},
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "colorway": list(CYCLE),
            "xaxis": axis,
            "yaxis": {**axis, "ticklabelstandoff": 5},
            "coloraxis": {"colorbar": {**bar, "title": {"side": "right", "font": {"size": 11, "color": QUIET}}}},
            "margin": {"l": 8, "r": 12, "t": 12, "b": 8},
            "legend": {
                "orientation": "h",
                "x": 0,
                "xanchor": "left",
                "y": 1.0,
                "yanchor": "bottom",
                "font": {"size": 11},
            },
            "annotationdefaults": {"font": {"size": 11, "color": QUIET}, "showarrow": False},
            "shapedefaults": {"line": {"color": INK, "width": 1.5}},
            "hoverlabel": {"font": {"family": FONT, "size": 12}},
            "dragmode": False,
            "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": GRID, "activecolor": QUIET},
        },
        data={
            "scatter": [{"marker": {"color": QUIET}, "line": {"color": QUIET}}],
            "bar": [{"error_x": {"color": INK}}],
        },
    )


def new_figure(*, height: int) -> go.Figure:
    """An empty figure in the light template; height in pixels."""
    return go.Figure(layout={"template": page_template(), "height": height})


def language_name(tag: str) -> str:
    """English name of a language, such as `Finnish`."""
    return langcodes.Language.get(tag, normalize=False).display_name()


def language_label(tag: str) -> str:
    """Name beside tag, such as `Finnish (fi)`."""
    return f"{language_name(tag)} ({tag})"


def short_label(label: str) -> str:
    """The tag of a label such as `Finnish (fi)`, where there is little room; any other label as it is."""
    match = LABEL.fullmatch(label)
    return match[1] if match else label


def row_axis(labels: Sequence[str]) -> dict[str, Any]:
    """A y axis with one row per label, the first at the top; marks sit at 0, 1, 2 …"""
    rows = list(range(len(labels)))
    return {
        "tickvals": rows,
        "ticktext": list(labels),
        "range": [len(labels) - 0.5, -0.5],
        "zeroline": False,
        "showgrid": False,
        "ticks": "",
    }


def signed(value: Real, digits: int) -> str:
    """A change with its sign, such as `+9.3`."""
    text = fixed(value, digits)
    return f"+{text}" if value > 0 else text


def between(low: Real, high: Real, digits: int) -> str:
    """An interval behind an estimate, such as ` (4.2 to 7.1)`; nothing where an end is not known."""
    return f" ({low:.{digits}f} to {high:.{digits}f})" if np.isfinite([low, high]).all() else ""


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


def decimals_for(limit: Real) -> int:
    """Digits behind the point that show a number of this size with two or three figures."""
    if not limit > 0:
        return 0
    return int(np.clip(1 - np.floor(np.log10(limit)), 0, 4))


def fixed(value: Real, digits: int) -> str:
    """A number with a true minus sign; nothing for NaN, and no minus zero."""
    if not np.isfinite(value):
        return ""
    text = f"{value:.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text.replace("-", "−")
