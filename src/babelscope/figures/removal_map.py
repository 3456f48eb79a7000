"""The figure of neurons removed by layer block and structure."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go

from babelscope.figures.colour_scales import DIVERGING
from babelscope.figures.heat_map_parts import colour_limit, heat_map, titled_axes
from babelscope.figures.style import Real, fixed, language_label


class RemovalCell(NamedTuple):
    """Harm of one language's neurons of one structure in one block of layers."""

    language: str
    structure: str
    block: str
    own_harm: Real
    """Relative harm on the language's own text."""
    other_harm: Real
    """Mean over other texts."""


def removal_map(*, cells: Sequence[RemovalCell]) -> go.Figure:
    """Harm on own text less that on other texts, in %, by language and structure (rows) and layers (columns)."""
    rows = list(dict.fromkeys((cell.language, cell.structure) for cell in cells))
    blocks = list(dict.fromkeys(cell.block for cell in cells))
    gap = np.full((len(rows), len(blocks)), np.nan)
    says = [["no neuron"] * len(blocks) for _ in rows]
    for cell in cells:
        row, column = rows.index((cell.language, cell.structure)), blocks.index(cell.block)
        gap[row, column] = 100 * (cell.own_harm - cell.other_harm)
        says[row][column] = (
            f"{cell.structure} neurons of {language_label(cell.language)} in layers {cell.block}: own text "
            f"{fixed(100 * cell.own_harm, 2)} %, other texts {fixed(100 * cell.other_harm, 2)} %"
        )
    limit = colour_limit(gap)
    names = [f"{language_label(tag)}, {structure}" for tag, structure in rows]
    text = [[fixed(value, 1) for value in row] for row in gap]
    figure = heat_map(gap, rows=names, columns=blocks, text=text, says=says)
    bar = {"title": {"text": "own − others (%)"}}
    figure.update_layout(coloraxis={"colorscale": DIVERGING, "cmin": -limit, "cmax": limit, "colorbar": bar})
    return titled_axes(figure, x="layers", y="neurons off", angle=0)
