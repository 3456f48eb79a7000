"""Heat maps: where the sets lie, what they share, what they harm, where steering leads."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from babelscope.axes import Float
from babelscope.figures.style import (
    CELL_TEXT_LIMIT,
    DIVERGING,
    SEQUENTIAL,
    decimals_for,
    fixed,
    language_label,
    new_figure,
    rows_height,
)

LIFT_DECADES = 2.0
"""The colour of an overlap saturates at 10^±2 times chance."""


def neuron_map(*, counts: Float[np.ndarray, "language layer"], languages: Sequence[str]) -> go.Figure:
    """Selected neurons by language (rows) and layer (columns); unit: neurons."""
    layers = [str(layer) for layer in range(counts.shape[1])]
    # A zero is left white: it is most of the map, and the filled cells are what is read.
    figure = _heat(
        np.where(counts > 0, counts, np.nan),
        rows=[language_label(tag) for tag in languages],
        columns=layers,
        text=[[fixed(value, 0) if value else "·" for value in row] for row in counts],
        value="%{customdata} neurons",
        custom=counts,
    )
    figure.update_layout(coloraxis={"colorscale": SEQUENTIAL, "cmin": 0, "colorbar": {"title": {"text": "neurons"}}})
    return _titled(figure, x="layer (block, from 0)", y="selected for", angle=0)


NEAR_TICKS, FAR_TICKS = (0.25, 0.5, 1, 2, 4), (0.01, 0.1, 1, 10, 100)
"""Lifts that the colour bar names, where all are below ten-fold and where some are above."""


def overlap_map(
    *,
    shared: Float[np.ndarray, "language language"],
    lift: Float[np.ndarray, "language language"],
    p: Float[np.ndarray, "language language"],
    languages: Sequence[str],
) -> go.Figure:
    """Neurons that two languages share, coloured by lift = shared / expected by chance, on a log10 scale.

    A cell holds the shared count, in brackets where p > 0.05. The diagonal (a set with itself) has no colour.
    No neuron shared is lift 0: drawn at the lower end of the colours.
    """
    with np.errstate(divide="ignore"):
        colour = np.clip(np.log10(lift), -LIFT_DECADES, LIFT_DECADES)
    np.fill_diagonal(colour, np.nan)
    sure = (p <= 0.05) | np.eye(len(languages), dtype=bool)
    text = [
        [fixed(n, 0) if known else f"({fixed(n, 0)})" for n, known in zip(counts, row, strict=True)]
        for counts, row in zip(shared, sure, strict=True)
    ]
    labels = [language_label(tag) for tag in languages]
    figure = _heat(
        colour,
        rows=labels,
        columns=labels,
        text=text,
        value="%{customdata[0]} shared, %{customdata[1]:.2f} × chance, p = %{customdata[2]:.3f}",
        custom=np.stack([shared, lift, p], axis=2),
    )
    reach = max(float(np.log10(2)), float(np.nanmax(np.abs(colour), initial=0.0)))
    ticks = [tick for tick in (FAR_TICKS if reach >= 1 else NEAR_TICKS) if abs(np.log10(tick)) <= reach + 1e-9]
    bar = {
        "title": {"text": "lift (× chance)"},
        "tickvals": np.log10(ticks).tolist(),
        "ticktext": [f"{lift:g}" for lift in ticks],
    }
    figure.update_layout(
        coloraxis={"colorscale": DIVERGING, "cmin": -reach, "cmax": reach, "colorbar": bar},
    )
    return _titled(figure, x="", y="")


def colour_limit(values: Float[np.ndarray, "..."]) -> float:
    """Where the colours of a diverging map saturate: the 98.5th percentile of the absolute values, never 0."""
    known = np.abs(values[np.isfinite(values)])
    limit = float(np.quantile(known, 0.985)) if known.size else 0.0
    return limit or (float(known.max(initial=0.0)) or 1.0)


def ablation_map(*, relative_harm: Float[np.ndarray, "language language"], languages: Sequence[str]) -> go.Figure:
    """Relative harm, shown in %, of switching off the row's set on the column's text; the diagonal is outlined.

    h = Σ_d δ_d / Σ_d NLL_d(nothing off), δ_d the rise of a document's negative log-likelihood. The colours are
    symmetric about 0 and saturate at `colour_limit`.
    """
    percent = relative_harm * 100
    limit = colour_limit(percent)
    digits = decimals_for(limit)
    labels = [language_label(tag) for tag in languages]
    figure = _heat(
        percent,
        rows=labels,
        columns=labels,
        text=[[fixed(value, digits) for value in row] for row in percent],
        value="%{z:.4f} %",
    )
    bar = {"title": {"text": "relative harm (%)"}}
    figure.update_layout(
        coloraxis={"colorscale": DIVERGING, "cmin": -limit, "cmax": limit, "colorbar": bar},
    )
    for at in range(len(labels)):
        figure.add_shape(type="rect", x0=at - 0.5, x1=at + 0.5, y0=at - 0.5, y1=at + 0.5)
    return _titled(figure, x="language of the text", y="set switched off")


def source_target_map(
    *, success: Float[np.ndarray, "source target"], sources: Sequence[str], targets: Sequence[str]
) -> go.Figure:
    """Answers recognised as the target language, in %, by language of the prompt (rows) and target (columns)."""
    percent = success * 100
    figure = _heat(
        percent,
        rows=[language_label(tag) for tag in sources],
        columns=[language_label(tag) for tag in targets],
        text=[[fixed(value, 0) for value in row] for row in percent],
        value="%{z:.1f} %",
    )
    bar = {"title": {"text": "success (%)"}}
    figure.update_layout(coloraxis={"colorscale": SEQUENTIAL, "cmin": 0, "cmax": 100, "colorbar": bar})
    return _titled(figure, x="target of the direction", y="language of the prompt")


def method_map(
    *, success: Float[np.ndarray, "method language"], methods: Sequence[str], languages: Sequence[str]
) -> go.Figure:
    """Answers recognised as the target language, in %, by way of steering (rows) and target (columns)."""
    percent = success * 100
    figure = _heat(
        percent,
        rows=list(methods),
        columns=[language_label(tag) for tag in languages],
        text=[[fixed(value, 0) for value in row] for row in percent],
        value="%{z:.1f} %",
    )
    bar = {"title": {"text": "success (%)"}}
    figure.update_layout(coloraxis={"colorscale": SEQUENTIAL, "cmin": 0, "cmax": 100, "colorbar": bar})
    return _titled(figure, x="target", y="way of steering")


def agreement_map(
    *,
    jaccard: Float[np.ndarray, "pair language"],
    chance: Float[np.ndarray, "pair language"],
    pairs: Sequence[str],
    languages: Sequence[str],
) -> go.Figure:
    """Jaccard index of a language's two sets, by the pair of texts they came from (rows); pointed at: that of chance.

    A cell is empty where both sets are.
    """
    figure = _heat(
        jaccard,
        rows=list(pairs),
        columns=[language_label(tag) for tag in languages],
        text=[[fixed(value, 2) if np.isfinite(value) else "–" for value in row] for row in jaccard],
        value="Jaccard index %{z:.3f}, by chance %{customdata:.3f}",
        custom=chance,
    )
    bar = {"title": {"text": "Jaccard index"}}
    figure.update_layout(coloraxis={"colorscale": SEQUENTIAL, "cmin": 0, "cmax": 1, "colorbar": bar})
    return _titled(figure, x="language", y="")


def _heat(
    z: Float[np.ndarray, "row column"],
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    text: Sequence[Sequence[str]],
    value: str,
    custom: Float[np.ndarray, "row column ..."] | None = None,
) -> go.Figure:
    """One heat map, its first row at the top; `value` is the last line of what a cell says when pointed at."""
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
        customdata=custom,
        coloraxis="coloraxis",
        xgap=1,
        ygap=1,
        hovertemplate=f"row %{{y}}<br>column %{{x}}<br>{value}<extra></extra>",
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


def _titled(figure: go.Figure, *, x: str, y: str, angle: int = -50) -> go.Figure:
    figure.update_xaxes(title={"text": x}, tickangle=angle)
    figure.update_yaxes(title={"text": y})
    return figure
