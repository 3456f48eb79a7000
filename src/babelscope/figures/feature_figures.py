"""Figures about features: how much a selection hangs on its settings, and harm beside matched random features."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from babelscope.axes import Float
from babelscope.errors import MeasurementError
from babelscope.figures.style import (
    BLUE,
    CYCLE,
    SKY,
    VERMILLION,
    arms,
    language_label,
    new_figure,
    page_template,
    row_axis,
    rows_height,
)


class SettingPoint(NamedTuple):
    """One language's set at one value of one setting, the others at their defaults."""

    setting: str
    """Such as `tau`."""
    value: float | int | str
    """What it was set to."""
    language: str
    size: int
    """Features before any cap."""
    jaccard: float | int
    """|A ∩ B| / |A ∪ B| of the capped set with that of the default settings; NaN where both are empty."""


def setting_sensitivity(points: Sequence[SettingPoint]) -> go.Figure:
    """A column per setting: sizes before the cap above, agreement of the capped sets with the default below.

    Values keep the order in which they come and are spaced evenly. Lines are languages, the thick one their mean.
    Raises MeasurementError where no point came.
    """
    if not points:
        raise MeasurementError("no point came; expected at least one setting with a value; measure first")
    settings = list(dict.fromkeys(point.setting for point in points))
    figure = make_subplots(
        rows=2,
        cols=len(settings),
        shared_xaxes=True,
        shared_yaxes=True,
        vertical_spacing=0.08,
        horizontal_spacing=0.025,
    )
    figure.update_layout(template=page_template(), height=420, showlegend=False)
    languages = list(dict.fromkeys(point.language for point in points))
    for column, setting in enumerate(settings, start=1):
        setting_points = [point for point in points if point.setting == setting]
        values = [
            value if isinstance(value, str) else f"{value:g}"
            for value in dict.fromkeys(point.value for point in setting_points)
        ]
        for row, field in ((1, "size"), (2, "jaccard")):
            lines = {tag: [float(getattr(p, field)) for p in setting_points if p.language == tag] for tag in languages}
            for tag, line in lines.items():
                _line(figure, values, line, language_label(tag), row, column, colour=SKY, width=1)
            mean = [float(value) for value in np.nanmean(np.array(list(lines.values())), axis=0)]
            _line(figure, values, mean, "mean over languages", row, column, colour=BLUE, width=3)
        figure.update_xaxes(type="category", col=column)
        figure.update_xaxes(title_text=setting, row=2, col=column)
    figure.update_yaxes(rangemode="tozero", row=1)
    figure.update_yaxes(title_text="features before the cap", row=1, col=1)
    figure.update_yaxes(range=[0, 1.03], row=2)
    figure.update_yaxes(title_text="Jaccard index with the default", row=2, col=1)
    return figure


def _line(
    figure: go.Figure, x: list[str], y: list[float], name: str, row: int, column: int, *, colour: str, width: int
) -> None:
    figure.add_scatter(
        x=x,
        y=y,
        mode="lines+markers",
        name=name,
        line={"color": colour, "width": width},
        marker={"color": colour, "size": 3 + 2 * width},
        hovertemplate=f"{name}<br>%{{x}}: %{{y:.3g}}<extra></extra>",
        row=row,
        col=column,
    )


def harm_ratios(
    *, ratios: Mapping[str, Float[np.ndarray, "language 3"]], languages: Sequence[str], bar: float | int = 5
) -> go.Figure:
    """Own harm over the mean absolute harm of each control: estimate and interval on a log axis, and the bar.

    ratios: by control, [estimate, low, high] a language. A ratio that is not above 0 has no place on the axis.
    """
    figure = new_figure(height=rows_height(len(languages), row=30, around=130))
    for number, (control, values) in enumerate(ratios.items()):
        positive = np.where(values > 0, values, np.nan)
        figure.add_scatter(
            x=positive[:, 0],
            y=[row + 0.22 * (number - (len(ratios) - 1) / 2) for row in range(len(languages))],
            mode="markers",
            name=control,
            marker={"color": CYCLE[number % len(CYCLE)], "size": 8},
            error_x=arms(positive[:, 0], positive[:, 1], positive[:, 2]),
            text=[language_label(tag) for tag in languages],
            hovertemplate=f"%{{text}}<br>{control}: %{{x:.3g}}<extra></extra>",
        )
    figure.add_vline(x=bar, line={"color": VERMILLION, "dash": "dot", "width": 1.5})
    figure.update_layout(
        yaxis=row_axis([language_label(tag) for tag in languages]),
        xaxis={"title": {"text": "own harm over the control's mean absolute harm"}, "type": "log"},
    )
    return figure
