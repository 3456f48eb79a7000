"""Figures about what an intervention does: harm against random draws, dose and response, steering by target."""

import html
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from babelscope.axes import Float
from babelscope.figures.style import (
    BLUE,
    CYCLE,
    GREEN,
    ORANGE,
    PURPLE,
    SYMBOLS,
    VERMILLION,
    Real,
    arms,
    between,
    decimals_for,
    language_label,
    language_name,
    new_figure,
    row_axis,
    rows_height,
    signed,
)

STRENGTH_UNIT = "multiple of the difference of means"
"""Unit of a strength where a run does not name its own."""
UNEVEN = 6.0
"""Largest over median own harm from which the harm axis is drawn as a signed square root."""


class DosePoint(NamedTuple):
    """One setting of a steering sweep."""

    layer: int
    """Block whose output the direction was added to."""
    strength: float
    """In the unit that the figure is given."""
    success: float
    """Share of answers recognised as the target language."""
    low: float
    """Lower end of the 95 % interval of the success; NaN where not measured."""
    high: float
    """Upper end."""
    perplexity_ratio: float
    """Perplexity of steered over native answers; NaN where not measured."""
    distinct4_ratio: float
    """Share of distinct 4-grams, steered over native; NaN where not measured."""


def harm_against_draws(
    *,
    own_harm: Float[np.ndarray, " language"],
    layer_matched: Mapping[str, Sequence[Real]],
    contribution_matched: Mapping[str, Sequence[Real]],
    p: Mapping[str, str],
    languages: Sequence[str],
) -> go.Figure:
    """Own-language harm in % of each set (diamond) beside that of random sets (a dot a draw); `p` is the row's label.

    Drawn on a signed square-root axis where the largest own harm is above six times the median.
    """
    own_sizes = np.abs(own_harm[np.isfinite(own_harm)])
    uneven = bool(own_sizes.size) and float(own_sizes.max()) > UNEVEN * float(np.median(own_sizes))
    figure = new_figure(height=rows_height(len(languages), row=30, around=130))
    for name, draws, colour, shift in (
        ("layer-matched draws", layer_matched, BLUE, -0.16),
        ("contribution-matched draws", contribution_matched, ORANGE, 0.16),
    ):
        flat = [(row, 100 * harm) for row, tag in enumerate(languages) for harm in draws.get(tag, ())]
        _add_harm(figure, [harm for _, harm in flat], [row for row, _ in flat], name, languages, uneven, shift)
        figure.data[-1].update(marker={"color": colour, "size": 5, "opacity": 0.7})
    _add_harm(figure, (100 * own_harm).tolist(), list(range(len(languages))), "the set", languages, uneven, 0.0)
    figure.data[-1].update(marker={"color": VERMILLION, "symbol": "diamond", "size": 11})
    for row, tag in enumerate(languages):
        if tag in p:
            figure.add_annotation(
                x=1.01, xref="paper", xanchor="left", y=row, text=p[tag], showarrow=False, font={"size": 11}
            )
    if p:
        heading = {"x": 1.01, "xref": "paper", "xanchor": "left", "y": 1, "yref": "paper", "yanchor": "bottom"}
        figure.add_annotation(**heading, text="p: layer ·<br>contribution", align="left", showarrow=False)
    all_harms = np.array(
        [*own_harm, *(x for draws_by_tag in (layer_matched, contribution_matched) for x in _all(draws_by_tag))]
    )
    axis = _root_axis(100 * all_harms) if uneven else {}
    scale = ", square-root scale" if uneven else ""
    figure.update_layout(
        yaxis={**row_axis([language_label(tag) for tag in languages]), "showgrid": True},
        xaxis={"title": {"text": f"harm on own text (%{scale})"}, "zerolinewidth": 2, **axis},
        margin={"r": 92, "t": 40},
    )
    return figure


def dose_response_lines(
    *,
    points: Sequence[DosePoint],
    band: tuple[float, float],
    chosen: Sequence[tuple[int, Real]] = (),
    unit: str = STRENGTH_UNIT,
) -> go.Figure:
    """Success and perplexity ratio against strength, a line per layer; `chosen` (layer, strength) pairs are ringed.

    band: perplexity ratios between which answers count as fluent, drawn behind the lower lines.
    unit: of the strength; one longer than fifty letters is left to the caption.
    """
    figure = go.Figure(make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.09, row_heights=[0.6, 0.4]))
    figure.update_layout(new_figure(height=560).layout)
    layers = sorted({point.layer for point in points})
    for at, layer in enumerate(layers):
        line = sorted(point for point in points if point.layer == layer)
        _add_dose_line(figure, line, colour=CYCLE[at % len(CYCLE)], symbol=SYMBOLS[at % len(SYMBOLS)])
    rings = [point for point in points if (point.layer, point.strength) in set(chosen)]
    ring = {"symbol": "circle-open", "size": 18, "line": {"width": 2.5}}
    for row, field, factor in ((1, "success", 100.0), (2, "perplexity_ratio", 1.0)):
        figure.add_scatter(
            x=[point.strength for point in rings],
            y=[factor * getattr(point, field) for point in rings],
            mode="markers",
            name="chosen",
            legendgroup="chosen",
            showlegend=row == 1,
            marker=ring,
            hoverinfo="skip",
            row=row,
            col=1,
        )
    low, high = band
    fluent = {"xref": "x2 domain", "yref": "y2", "x0": 0, "x1": 1, "y0": low, "y1": high}
    figure.add_shape(type="rect", **fluent, fillcolor=GREEN, opacity=0.16, line={"width": 0}, layer="below")
    strength_title = f"strength ({unit})" if len(unit) <= 50 else "strength (unit in the caption)"
    figure.update_xaxes(title={"text": html.escape(strength_title)}, row=2, col=1)
    figure.update_yaxes(title={"text": "success (%)"}, range=[-3, 103], row=1, col=1)
    ticks = [0.25, 0.5, 0.67, 1, 1.5, 2, 3, 5, 10, 20, 50, 100]
    ratios = [point.perplexity_ratio for point in points if point.perplexity_ratio > 0] or [1.0]
    ends = [np.log10(min(*ratios, low) * 0.9), np.log10(max(*ratios, high) * 1.12)]
    figure.update_yaxes(
        title={"text": "perplexity ratio "
        "(×)"}, type="log", range=ends, tickvals=ticks, ticktext=[f"{x:g}" for x in ticks],
        row=2, col=1,
    )  # fmt: skip
    return figure


def steering_bars(
    *,
    success: Mapping[str, Real],
    intervals: Mapping[str, tuple[Real, Real]],
    comparisons: Mapping[str, Mapping[str, Real]],
    targets: Sequence[str],
) -> go.Figure:
    """Answers recognised as the target, in %: a bar with its interval for steering, a mark per comparison.

    comparisons: {"native" | "unsteered" | "random" | "other_language" | "neuron_arithmetic": {tag: share}}.
    """
    rows = list(range(len(targets)))
    value = 100 * np.array([success.get(tag, np.nan) for tag in targets], dtype=np.float64)
    ends = 100 * np.array([intervals.get(tag, (np.nan, np.nan)) for tag in targets], dtype=np.float64).reshape(-1, 2)
    figure = new_figure(height=rows_height(len(targets), row=32, around=130))
    figure.add_bar(
        x=value,
        y=rows,
        orientation="h",
        name="steered",
        marker={"color": BLUE, "opacity": 0.55},
        error_x=arms(value, ends[:, 0], ends[:, 1]),
        hovertext=[
            f"{language_name(tag)}, steered: {share:.1f} %{between(low, high, 1)}"
            for tag, share, (low, high) in zip(targets, value, ends, strict=True)
        ],
        hoverinfo="text",
    )
    marks: dict[str, tuple[str, float, dict[str, Any]]] = {
        "native": ("native text "
        "(ceiling)", 0.0, {"symbol": "line-ns", "size": 20, "line": {"width": 3, "color": GREEN}}),
        "unsteered": ("unsteered", -0.2, {"symbol": "circle-open", "size": 9, "line": {"width": 2}}),
        "random": ("random direction", 0.0, {"color": ORANGE, "symbol": "x", "size": 9}),
        "other_language": ("another language's direction", 0.2, {"color": PURPLE, "symbol": "triangle-up", "size": 10}),
        "neuron_arithmetic": ("neuron arithmetic", 0.0, {"color": VERMILLION, "symbol": "diamond", "size": 9}),
    }  # fmt: skip
    for key, (name, shift, marker) in marks.items():
        if key in comparisons:
            figure.add_scatter(
                x=[100 * comparisons[key].get(tag, np.nan) for tag in targets],
                y=[row + shift for row in rows],
                mode="markers",
                name=name,
                marker=marker,
                hovertext=[
                    f"{language_name(tag)}, {name}: {100 * comparisons[key].get(tag, np.nan):.1f} %" for tag in targets
                ],
                hoverinfo="text",
            )
    figure.update_layout(
        yaxis=row_axis([language_label(tag) for tag in targets]),
        xaxis={"title": {"text": "answers recognised as the target language (%)"}, "range": [-3, 103]},
        bargap=0.4,
    )
    return figure


def _add_harm(
    figure: go.Figure,
    harm: Sequence[Real],
    rows: Sequence[int],
    name: str,
    languages: Sequence[str],
    uneven: bool,
    shift: float,
) -> None:
    values = np.array(harm, dtype=np.float64)
    figure.add_scatter(
        x=_root(values) if uneven else values,
        y=[row + shift for row in rows],
        mode="markers",
        name=name,
        hovertext=[
            f"{language_name(languages[row])}, {name}: {signed(value, decimals_for(abs(value)))} %"
            for row, value in zip(rows, harm, strict=True)
        ],
        hoverinfo="text",
    )


def _all(draws: Mapping[str, Sequence[Real]]) -> list[Real]:
    return [harm for tag_draws in draws.values() for harm in tag_draws]


def _root(values: Float[np.ndarray, "*any"]) -> Float[np.ndarray, "*any"]:
    return np.sign(values) * np.sqrt(np.abs(values))


def _root_axis(values: Float[np.ndarray, " value"]) -> dict[str, list[float] | list[str]]:
    """Ticks at round values of a signed square-root axis, far enough apart to be read."""
    roots = _root(values[np.isfinite(values)])
    top, bottom = float(roots.max()), min(0.0, float(roots.min()))
    steps = sorted(
        (sign * base * 10.0**power for power in range(-4, 4) for base in (1, 2, 5) for sign in (1, -1)), key=abs
    )
    ticks = {0.0: "0"}
    for step, place in zip(steps, _root(np.array(steps)).tolist(), strict=True):
        if bottom <= place <= 1.05 * top and min(abs(place - tick) for tick in ticks) > (top - bottom) / 9:
            ticks[place] = f"{step:g}".replace("-", "−")
    return {"tickvals": list(ticks), "ticktext": list(ticks.values())}


def _add_dose_line(figure: go.Figure, line: Sequence[DosePoint], *, colour: str, symbol: str) -> None:
    name = f"layer {line[0].layer}"
    x = [point.strength for point in line]
    success, low, high = (
        100 * np.array([getattr(point, field) for point in line], dtype=np.float64)
        for field in ("success", "low", "high")
    )
    style = {"mode": "lines+markers", "name": name, "legendgroup": name, "line": {"color": colour, "width": 2}}
    marker = {"color": colour, "symbol": symbol, "size": 8}
    place = [f"{name}, strength {point.strength:g}" for point in line]
    figure.add_scatter(
        x=x, y=success, error_y=arms(success, low, high), marker=marker, row=1, col=1, **style,
        hovertext=[f"{at}: success {100 * point.success:.1f} %{between(100 * point.low, 100 * point.high, 1)}"
                   for at, point in zip(place, line, strict=True)],
        hoverinfo="text",
    )  # fmt: skip
    figure.add_scatter(
        x=x, y=[point.perplexity_ratio for point in line], marker=marker, row=2, col=1,
        showlegend=False, **style,
        hovertext=[f"{at}: perplexity × {point.perplexity_ratio:.2f}, distinct 4-grams × {point.distinct4_ratio:.2f}"
                   for at, point in zip(place, line, strict=True)],
        hoverinfo="text",
    )  # fmt: skip
