"""Heat maps: where the sets lie, what they share, what they harm, where steering leads."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from babelscope.axes import Float
from babelscope.figures.colour_scales import DIVERGING, SEQUENTIAL
from babelscope.figures.heat_map_parts import cell_texts, colour_limit, heat_map, outlined_diagonal, titled_axes
from babelscope.figures.style import (
    decimals_for,
    fixed,
    language_label,
    language_name,
    signed,
)

FEWEST_ANSWERS = 10
"""Answers below which a share is no more than a few coin tosses: its cell has no colour."""
LIFT_DECADES = 2.0
"""The colour of an overlap saturates at 10^±2 times chance."""


def neuron_map(*, counts: Float[np.ndarray, "language layer"], languages: Sequence[str]) -> go.Figure:
    """Selected neurons by language (rows) and layer (columns); unit: neurons."""
    layers = [str(layer) for layer in range(counts.shape[1])]
    # A zero is left white: it is most of the map, and the filled cells are what is read.
    figure = heat_map(
        np.where(counts > 0, counts, np.nan),
        rows=[language_label(tag) for tag in languages],
        columns=layers,
        text=[[fixed(value, 0) if value else "·" for value in row] for row in counts],
        says=cell_texts(
            [language_name(tag) for tag in languages],
            layers,
            counts,
            lambda name, layer, value: f"{name}, layer {layer}: {value:.0f} neurons",
        ),
    )
    figure.update_layout(coloraxis={"colorscale": SEQUENTIAL, "cmin": 0, "colorbar": {"title": {"text": "neurons"}}})
    return titled_axes(figure, x="layer (block, from 0)", y="selected for", angle=0)


def rate_map(
    *, rates: Float[np.ndarray, "language layer"], layers: Sequence[int], languages: Sequence[str]
) -> go.Figure:
    """How often units are active, a row per language, a column per layer; rates are shares of tokens."""
    percent = 100 * rates
    digits = decimals_for(float(np.nanmax(percent, initial=0.0)))
    columns = [str(layer) for layer in layers]
    names = [language_name(tag) for tag in languages]
    figure = heat_map(
        percent,
        rows=[language_label(tag) for tag in languages],
        columns=columns,
        text=[[fixed(value, digits) for value in row] for row in percent],
        says=cell_texts(names, columns, percent, lambda name, layer, value: f"{name}, layer {layer}: {value:.1f} %"),
    )
    bar = {"title": {"text": "active (% of tokens)"}}
    figure.update_layout(coloraxis={"colorscale": SEQUENTIAL, "colorbar": bar})
    return titled_axes(figure, x="layer (block, from 0)", y="text", angle=0)


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
        [fixed(n, 0) if above_chance else f"({fixed(n, 0)})" for n, above_chance in zip(counts, row, strict=True)]
        for counts, row in zip(shared, sure, strict=True)
    ]
    labels = [language_label(tag) for tag in languages]
    figure = heat_map(
        colour,
        rows=labels,
        columns=labels,
        text=text,
        says=[
            [
                f"{language_name(row_tag)} and {language_name(column_tag)}: {shared[i, j]:.0f} shared, "
                f"{lift[i, j]:.2f} × chance, p {'< 0.001' if p[i, j] < 0.001 else f'= {p[i, j]:.3f}'}"
                if i != j
                else f"{language_name(row_tag)}: {shared[i, j]:.0f} neurons"
                for j, column_tag in enumerate(languages)
            ]
            for i, row_tag in enumerate(languages)
        ],
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
    return titled_axes(figure, x="", y="")


def ablation_map(*, relative_harm: Float[np.ndarray, "language language"], languages: Sequence[str]) -> go.Figure:
    """Relative harm, shown in %, of switching off the row's set on the column's text; the diagonal is outlined.

    h = Σ_d δ_d / Σ_d NLL_d(nothing off), δ_d the rise of a document's negative log-likelihood. The colours are
    symmetric about 0 and saturate at `colour_limit`.
    """
    percent = relative_harm * 100
    limit = colour_limit(percent)
    digits = decimals_for(limit)
    labels, names = [language_label(tag) for tag in languages], [language_name(tag) for tag in languages]
    figure = heat_map(
        percent,
        rows=labels,
        columns=labels,
        text=[[fixed(value, digits) for value in row] for row in percent],
        says=cell_texts(
            names,
            names,
            percent,
            lambda set_tag, text_tag, value: (
                f"{set_tag} neurons off, {text_tag} text: {signed(value, max(1, digits))} %"
            ),
        ),
    )
    bar = {"title": {"text": "relative harm (%)"}}
    figure.update_layout(
        coloraxis={"colorscale": DIVERGING, "cmin": -limit, "cmax": limit, "colorbar": bar},
    )
    return titled_axes(outlined_diagonal(figure, len(labels)), x="language of the text", y="set switched off")


def source_target_map(
    *,
    success: Float[np.ndarray, "source target"],
    n: Float[np.ndarray, "source target"] | None = None,
    sources: Sequence[str],
    targets: Sequence[str],
) -> go.Figure:
    """Answers recognised as the target language, in %, by language of the prompt (rows) and target (columns).

    n: answers of each cell, where known. A cell of fewer than `FEWEST_ANSWERS` has no colour and says its n.
    """
    percent = success * 100
    few = np.zeros(percent.shape, dtype=bool) if n is None else n < FEWEST_ANSWERS
    digits = [[fixed(value, 0) for value in row] for row in percent]
    text = [
        [f"{said}<br>n={n[i, j]:.0f}" if n is not None and few[i, j] and said else said for j, said in enumerate(row)]
        for i, row in enumerate(digits)
    ]
    says = [
        [
            f"{language_name(source)} prompt to {language_name(target)}: {fixed(percent[i, j], 1) or '–'} %"
            + ("" if n is None else f" of {n[i, j]:.0f} answers")
            for j, target in enumerate(targets)
        ]
        for i, source in enumerate(sources)
    ]
    figure = heat_map(
        np.where(few, np.nan, percent),
        rows=[language_label(tag) for tag in sources],
        columns=[language_label(tag) for tag in targets],
        text=text,
        says=says,
    )
    bar = {"title": {"text": "success (%)"}}
    figure.update_layout(coloraxis={"colorscale": SEQUENTIAL, "cmin": 0, "cmax": 100, "colorbar": bar})
    return titled_axes(figure, x="target of the direction", y="language of the prompt")


def method_map(
    *, success: Float[np.ndarray, "method language"], methods: Sequence[str], languages: Sequence[str]
) -> go.Figure:
    """Answers recognised as the target language, in %, by way of steering (rows) and target (columns)."""
    percent = success * 100
    figure = heat_map(
        percent,
        rows=list(methods),
        columns=[language_label(tag) for tag in languages],
        text=[[fixed(value, 0) for value in row] for row in percent],
        says=cell_texts(
            methods,
            [language_name(tag) for tag in languages],
            percent,
            lambda method, name, value: f"{method}, {name}: {value:.1f} %",
        ),
    )
    bar = {"title": {"text": "success (%)"}}
    figure.update_layout(coloraxis={"colorscale": SEQUENTIAL, "cmin": 0, "cmax": 100, "colorbar": bar})
    return titled_axes(figure, x="target", y="way of steering")


def unit_rate_map(
    *, rates: Float[np.ndarray, "unit language"], units: Sequence[str], languages: Sequence[str]
) -> go.Figure:
    """Share of each language's tokens, in %, on which a neuron or feature is active: a row per unit."""
    percent = 100 * rates
    digits = decimals_for(float(np.nanmax(percent, initial=0.0)))
    names = [language_name(tag) for tag in languages]
    figure = heat_map(
        percent,
        rows=list(units),
        columns=[language_label(tag) for tag in languages],
        text=[[fixed(value, digits) for value in row] for row in percent],
        says=cell_texts(units, names, percent, lambda unit, name, value: f"{unit}: active on {value:.1f} % of {name}"),
    )
    bar = {"title": {"text": "active (% of tokens)"}}
    top = float(np.nanmax(percent, initial=0.0)) or 1.0
    figure.update_layout(coloraxis={"colorscale": SEQUENTIAL, "cmin": 0, "cmax": top, "colorbar": bar})
    return titled_axes(figure, x="language of the text", y="unit")


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
    figure = heat_map(
        jaccard,
        rows=list(pairs),
        columns=[language_label(tag) for tag in languages],
        text=[[fixed(value, 2) if np.isfinite(value) else "–" for value in row] for row in jaccard],
        says=[
            [
                f"{pair}, {language_name(tag)}: Jaccard index {jaccard[row, column]:.3f}, "
                f"by chance {chance[row, column]:.3f}"
                for column, tag in enumerate(languages)
            ]
            for row, pair in enumerate(pairs)
        ],
    )
    bar = {"title": {"text": "Jaccard index"}}
    figure.update_layout(coloraxis={"colorscale": SEQUENTIAL, "cmin": 0, "cmax": 1, "colorbar": bar})
    return titled_axes(figure, x="language", y="")
