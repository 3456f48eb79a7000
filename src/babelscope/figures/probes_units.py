"""Figures of the probes of units: tokenizer, heads, experts, concept neurons, patched activations."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import plotly.graph_objects as go

from babelscope.axes import Float
from babelscope.figures.colour_scales import DIVERGING, SEQUENTIAL
from babelscope.figures.heat_map_parts import cell_texts, colour_limit, heat_map, titled_axes
from babelscope.figures.style import (
    BLUE,
    CYCLE,
    ORANGE,
    PURPLE,
    SYMBOLS,
    VERMILLION,
    Real,
    arms,
    decimals_for,
    fixed,
    language_label,
    language_name,
    new_figure,
    row_axis,
    rows_height,
)


class Estimate(NamedTuple):
    """One language's value with the ends of its interval; NaN ends are not drawn."""

    value: Real
    low: Real
    high: Real


def token_premium(
    *,
    premium: Mapping[str, Estimate],
    characters: Mapping[str, Real],
    utf8: Mapping[str, Real],
    against: str,
) -> go.Figure:
    """Tokens for the same sentences over those of `against`, beside what characters and bytes alone would cost.

    Languages stand in the order of the mapping, the first at the top; 1 is the price of `against`.
    """
    tags = list(premium)
    figure = _rows_figure(tags, f"over {language_label(against)}, same sentences (×)")
    _marks(figure, [utf8[tag] for tag in tags], tags, "UTF-8 bytes", ORANGE, "triangle-up")
    _marks(figure, [characters[tag] for tag in tags], tags, "characters", PURPLE, "square")
    _estimates(figure, premium, "tokens", BLUE)
    figure.add_vline(x=1, line={"dash": "dot", "width": 1})
    return figure


def training_shares(
    *, inferred: Mapping[str, Estimate], known: Mapping[str, Real] | None = None, floor: Real | None = None
) -> go.Figure:
    """Inferred shares of a tokenizer's training data, in %; `known` shares as rings, `floor` what a decoy text got.

    A share that is NaN is written as "not identified".
    """
    tags = list(inferred)
    figure = _rows_figure(tags, "share of the tokenizer's training bytes (%)")
    percent = {tag: Estimate(*(100 * part for part in estimate)) for tag, estimate in inferred.items()}
    if known is not None:
        x = [100 * known.get(tag, np.nan) for tag in tags]
        _marks(figure, x, tags, "known", VERMILLION, "circle-open", size=15)
    _estimates(figure, percent, "inferred from the merges", BLUE)
    for tag, estimate in percent.items():
        if not np.isfinite(estimate.value):
            figure.add_annotation(x=0, y=tags.index(tag), text="not identified", showarrow=False, xanchor="left")
    if floor is not None and np.isfinite(floor):
        figure.add_vline(x=100 * floor, line={"dash": "dot", "width": 1}, annotation_text="decoy text")
    # Room for half a ring at 0; 1 % where nothing is known.
    shown_values = [
        part for estimate in percent.values() for part in (estimate.value, estimate.high) if np.isfinite(part)
    ]
    top = max([*(shown_values or [1.0]), *(100 * part for part in (known or {}).values() if np.isfinite(part))])
    figure.update_xaxes(range=[-0.015 * top, 1.05 * top])
    return figure


def head_map(
    *,
    share: Float[np.ndarray, "language layer head"],
    languages: Sequence[str],
    chosen: Sequence[tuple[int, int, int]] = (),
) -> go.Figure:
    """A language's share of each head's activity over an even share, as log2: 0 even, 1 twice as much.

    chosen: (language, layer, head) cells to outline.
    """
    lift = np.log2(share * len(languages))
    columns = [f"{layer}.{head}" for layer in range(share.shape[1]) for head in range(share.shape[2])]
    flat = lift.reshape(len(languages), -1)
    limit = colour_limit(flat)
    figure = heat_map(
        flat,
        rows=[language_label(tag) for tag in languages],
        columns=columns,
        text=[[fixed(value, 1) for value in row] for row in flat],
        says=cell_texts(
            [language_name(tag) for tag in languages],
            columns,
            flat,
            lambda name, head, value: f"{name}, head {head}: log2 of share over even {value:.3f}",
        ),
    )
    bar = {"title": {"text": "log2(share / even share)"}}
    figure.update_layout(coloraxis={"colorscale": DIVERGING, "cmin": -limit, "cmax": limit, "colorbar": bar})
    for language, layer, head in chosen:
        x = layer * share.shape[2] + head
        figure.add_shape(type="rect", x0=x - 0.5, x1=x + 0.5, y0=language - 0.5, y1=language + 0.5)
    return titled_axes(figure, x="layer.head", y="", angle=-90)


def head_harm(*, own: Mapping[str, Estimate], drawn: Mapping[str, Sequence[Real]]) -> go.Figure:
    """Harm, in %, of switching off a language's heads on its own text, beside that of other heads in their layers."""
    tags = list(own)
    figure = _rows_figure(tags, "harm on own text (%)")
    cells = [(row, 100 * value) for row, tag in enumerate(tags) for value in drawn[tag]]
    figure.add_scatter(
        x=[value for _, value in cells],
        y=[row for row, _ in cells],
        mode="markers",
        name="other heads of the same layers",
        marker={"color": ORANGE, "symbol": "line-ns", "size": 12, "line": {"width": 2, "color": ORANGE}},
        hovertemplate="control set: %{x:.3f} %<extra></extra>",
    )
    percent = {tag: Estimate(*(100 * part for part in estimate)) for tag, estimate in own.items()}
    _estimates(figure, percent, "the language's heads", BLUE)
    figure.update_xaxes(zerolinewidth=2)
    return figure


def attention_map(*, value: Float[np.ndarray, "language layer"], languages: Sequence[str], unit: str) -> go.Figure:
    """One measure by language and layer, such as a mean over heads: how a column differs is the finding."""
    top = float(np.nanmax(value, initial=0.0))
    digits = max(2, decimals_for(top))
    figure = heat_map(
        value,
        rows=[language_label(tag) for tag in languages],
        columns=[str(layer) for layer in range(value.shape[1])],
        text=[[fixed(cell, digits) for cell in row] for row in value],
        says=cell_texts(
            [language_name(tag) for tag in languages],
            [str(layer) for layer in range(value.shape[1])],
            value,
            lambda name, layer, cell: f"{name}, layer {layer}: {unit} {cell:.4f}",
        ),
    )
    bar = {"title": {"text": unit}}
    figure.update_layout(coloraxis={"colorscale": SEQUENTIAL, "cmin": 0, "cmax": top or 1.0, "colorbar": bar})
    return titled_axes(figure, x="layer (block, from 0)", y="", angle=0)


def routing_map(
    *,
    divergence: Float[np.ndarray, "language layer"],
    null: Float[np.ndarray, "language layer"],
    q: Float[np.ndarray, "language layer"],
    languages: Sequence[str],
    against: str,
    control: str = "swapped labels",
) -> go.Figure:
    """Divergence of expert use from `against` by language and layer, in bits; in brackets where q > 0.05."""
    top = float(np.nanmax(divergence, initial=0.0))
    digits = decimals_for(top)
    text = [
        [fixed(v, digits) if sure <= 0.05 else f"({fixed(v, digits)})" for v, sure in zip(row, sures, strict=True)]
        for row, sures in zip(divergence, q, strict=True)
    ]
    figure = heat_map(
        divergence,
        rows=[language_label(tag) for tag in languages],
        columns=[str(layer) for layer in range(divergence.shape[1])],
        text=text,
        says=[
            [
                f"{language_name(tag)}, layer {layer}: {cell:.4f} bits, {control} {chance:.4f}"
                for layer, (cell, chance) in enumerate(zip(*pair, strict=True))
            ]
            for tag, pair in zip(languages, zip(divergence, null, strict=True), strict=True)
        ],
    )
    bar = {"title": {"text": f"divergence from {against} (bits)"}}
    # Plotly follows cmin only where cmax stands beside it.
    figure.update_layout(coloraxis={"colorscale": SEQUENTIAL, "cmin": 0, "cmax": top or 1.0, "colorbar": bar})
    return titled_axes(figure, x="layer (block, from 0)", y="", angle=0)


def concept_lines(
    *,
    agreement: Float[np.ndarray, "layer neuron"],
    null: Float[np.ndarray, " layer"],
    share: Sequence[Estimate],
) -> go.Figure:
    """Concept neurons by layer, in %, with intervals; hovering shows the mean agreement beside the permuted one."""
    figure = new_figure(height=320)
    value, low, high = (100 * np.array([estimate[part] for estimate in share], dtype=np.float64) for part in range(3))
    figure.add_scatter(
        x=list(range(len(share))),
        y=value,
        error_y=arms(value, low, high),
        mode="lines+markers",
        name="concept neurons",
        marker={"color": BLUE, "size": 8},
        line={"color": BLUE},
        customdata=np.stack([agreement.mean(axis=1), null], axis=1),
        hovertemplate="layer %{x}: %{y:.2f} %<br>mean agreement %{customdata[0]:.4f}, permuted %{customdata[1]:.4f}"
        "<extra></extra>",
    )
    figure.update_xaxes(title={"text": "layer (block, from 0)"})
    figure.update_yaxes(title={"text": "neurons with q ≤ 0.05 (%)"}, rangemode="tozero")
    return figure


def patch_lines(
    *,
    effect: Mapping[str, Sequence[Estimate]],
    control: Mapping[str, Sequence[Estimate]],
    unit: str = "share of the logit difference carried over",
) -> go.Figure:
    """Effect of patching each layer, a line a group of positions; dashed: patched from an unrelated sentence."""
    figure = new_figure(height=360)
    for number, (group, points) in enumerate(effect.items()):
        colour, symbol = CYCLE[number % len(CYCLE)], SYMBOLS[number % len(SYMBOLS)]
        for line_points, name, dash in (
            (points, group, "solid"),
            (control.get(group, []), f"{group}, unrelated", "dash"),
        ):
            value, low, high = (
                np.array([estimate[part] for estimate in line_points], dtype=np.float64) for part in range(3)
            )
            figure.add_scatter(
                x=list(range(len(line_points))),
                y=value,
                error_y=arms(value, low, high),
                mode="lines+markers",
                name=name,
                line={"color": colour, "dash": dash},
                marker={"color": colour, "symbol": symbol, "size": 7},
            )
    figure.add_hline(y=0, line={"width": 1, "dash": "dot"})
    figure.add_hline(y=1, line={"width": 1, "dash": "dot"})
    figure.update_xaxes(title={"text": "layer (block, from 0)"})
    figure.update_yaxes(title={"text": unit})
    return figure


def _rows_figure(tags: Sequence[str], title: str) -> go.Figure:
    figure = new_figure(height=rows_height(len(tags), around=120))
    axis: dict[str, Any] = {**row_axis([language_label(tag) for tag in tags]), "showgrid": True}
    figure.update_layout(yaxis=axis, xaxis={"title": {"text": title}}, margin={"t": 40})
    return figure


def _marks(
    figure: go.Figure, x: Sequence[Real], tags: Sequence[str], name: str, colour: str, symbol: str, size: int = 9
) -> None:
    marker = {"color": colour, "symbol": symbol, "size": size, "line": {"width": 2 if size > 9 else 0, "color": colour}}
    figure.add_scatter(
        x=list(x),
        y=list(range(len(tags))),
        mode="markers",
        name=name,
        marker=marker,
        text=[language_label(tag) for tag in tags],
        hovertemplate=f"%{{text}}<br>{name}: %{{x:.3f}}<extra></extra>",
    )


def _estimates(figure: go.Figure, estimates: Mapping[str, Estimate], name: str, colour: str) -> None:
    value, low, high = (
        np.array([estimate[part] for estimate in estimates.values()], dtype=np.float64) for part in range(3)
    )
    _marks(figure, value.tolist(), list(estimates), name, colour, "circle")
    figure.data[-1].update(error_x=arms(value, low, high))
