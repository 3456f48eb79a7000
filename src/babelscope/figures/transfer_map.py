"""What training on each language gave every other."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from babelscope.axes import Float
from babelscope.figures.colour_scales import DIVERGING
from babelscope.figures.figure_caption import FigureCaption
from babelscope.figures.heat_map_parts import cell_texts, colour_limit, heat_map, outlined_diagonal, titled_axes
from babelscope.figures.style import decimals_for, fixed, language_label, language_name, signed

TRANSFER_CAPTION = FigureCaption(
    "Which language helps which",
    "Bits per byte that the column's held-out text lost by training on the row's language: above zero is a gain. A "
    "language's own text is outlined. Rows where the untouched model stayed best are empty.",
)


def transfer_map(*, gain: Float[np.ndarray, "source target"], languages: Sequence[str]) -> go.Figure:
    """Bits per byte that the column's text lost by training on the row's language; the diagonal is outlined.

    NaN, shown as a dash: nothing was learnt from the row's language.

    The colours are those of pairs of two languages, symmetric about 0, and saturate at `colour_limit`: what a language
    gives itself is far more, and would leave the others pale.
    """
    labels, names = [language_label(tag) for tag in languages], [language_name(tag) for tag in languages]
    limit = colour_limit(gain[~np.eye(len(gain), dtype=bool)])
    digits = decimals_for(limit)
    figure = heat_map(
        gain,
        rows=labels,
        columns=labels,
        text=[[fixed(value, digits) if np.isfinite(value) else "–" for value in row] for row in gain],
        says=cell_texts(
            names,
            names,
            gain,
            lambda source, target, value: (
                f"trained on {source}, {target} text: gain {signed(value, max(2, digits))} bits per byte"
            ),
        ),
    )
    bar = {"title": {"text": "gain (bits per byte)"}}
    figure.update_layout(coloraxis={"colorscale": DIVERGING, "cmin": -limit, "cmax": limit, "colorbar": bar})
    return titled_axes(outlined_diagonal(figure, len(labels)), x="language of the text", y="trained on")
