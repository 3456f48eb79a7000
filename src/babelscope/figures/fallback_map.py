"""The figure of fallback languages."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from babelscope.axes import Float
from babelscope.figures.colour_scales import SEQUENTIAL
from babelscope.figures.figure_caption import FigureCaption
from babelscope.figures.heat_map_parts import heat_map, titled_axes
from babelscope.figures.style import fixed, language_label

FALLBACK_CAPTION = FigureCaption(
    "Which language comes out",
    "Answers by language, a row for each step: the neurons of more and more languages are off. In brackets, the same "
    "with random neurons of as many, in the same layers.",
)


def fallback_map(
    *,
    share: Float[np.ndarray, "step language"],
    control: Float[np.ndarray, "step language"],
    off: Sequence[str],
    languages: Sequence[str],
) -> go.Figure:
    """Answers by language (columns) with the neurons of more and more languages off (rows), in %.

    control: the same with random sets of the same sizes, in brackets in each cell; NaN where there were none. off: what
    is off at each step. A language "" is none recognised.
    """
    percent, random_percent = 100 * share, 100 * control
    text = [
        [
            f"{fixed(value, 0)}" + (f" ({fixed(chance, 0)})" if np.isfinite(chance) else "")
            for value, chance in zip(*pair, strict=True)
        ]
        for pair in zip(percent, random_percent, strict=True)
    ]
    names = [language_label(tag) if tag else "none" for tag in languages]
    says = [
        [
            f"{step}: {fixed(percent[i, j], 1)} % of answers in {name}; random sets {fixed(random_percent[i, j], 1)} %"
            for j, name in enumerate(names)
        ]
        for i, step in enumerate(off)
    ]
    figure = heat_map(percent, rows=list(off), columns=names, text=text, says=says)
    bar = {"title": {"text": "answers (%)"}}
    figure.update_layout(coloraxis={"colorscale": SEQUENTIAL, "cmin": 0, "cmax": 100, "colorbar": bar})
    return titled_axes(figure, x="language of the answer (random sets)", y="neurons off")
