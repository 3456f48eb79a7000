"""A plotly figure as SVG that is there before any script: it fits every width, both kinds of page, and print."""

import html
import math
from typing import Any

import numpy as np
import plotly.graph_objects as go

from babelscope.errors import MeasurementError
from babelscope.figures.style import short_label
from babelscope.figures.svg_axes import DrawnAxis, axes_of, round_ticks, tick_label
from babelscope.figures.svg_elements import (
    NARROW,
    WIDE,
    label_lines,
    share,
    svg_element,
    svg_number,
    text_width,
    turned,
    written,
)
from babelscope.figures.svg_marks import ColourBar, DrawingArea, marker_icon, marks_of, notes_width, said_by

DRAWN = ("bar", "heatmap", "scatter")
"""Types of the traces that are drawn."""
AROUND = 110
"""Pixels of a plotly figure's height that are no drawing: titles, labels, legend."""
LETTER = 11.5
"""Size of labels, in pixels."""
MANY_WIDE, MANY_NARROW = 30, 13
"""Most labels side by side on a wide and on a narrow screen; of more, every second, third … is shown."""
BAR_COLOURS, BAR_WIDTH = 32, 220


def figure_svg(figure: go.Figure, *, name: str, title: str, description: str) -> str:
    """Markup of a figure: its legend and colour bar, and one SVG with a title and a description for screen readers.

    name: start of the ids in it. The width is that of the place where it stands: coordinates across are shares, those
    down are pixels, so that text keeps its size. Labels lie left and right of the element, in margins of its own. On a
    narrow screen language names become tags. Colours are given for a light and for a dark page. What depends on the
    screen stands in the element's style as variables, and the page's style sheet chooses (page.css):
    --a and --b are the left margin on a wide and on a narrow screen, --r the right one, --h and --k the heights.
    Raises MeasurementError for a trace that is no bar, heat map or scatter, and for one with a colour for each mark.
    """
    marked = [trace for trace in figure.data if trace.type in ("bar", "scatter")]
    foreign = {trace.type for trace in figure.data} - set(DRAWN)
    if foreign:
        received, expected = ", ".join(sorted(foreign)), ", ".join(DRAWN)
        raise MeasurementError(
            f"trace {received} cannot be drawn as SVG; expected {expected}; use marks of these kinds"
        )
    if any(isinstance(trace.marker.color, list | tuple | np.ndarray) for trace in marked):
        raise MeasurementError(
            "a trace has a colour for each mark, which is not drawn; expected one; give it two traces"
        )
    layout: Any = figure.layout
    area = DrawingArea(axes_of(figure, "x"), axes_of(figure, "y"), max(120.0, float(layout.height) - AROUND))
    bar = _colour_bar(figure)
    top = _top(figure, area)
    feet = {kind: _foot(area, narrow=kind == NARROW) for kind in (WIDE, NARROW)}
    lefts = {kind: _left(area, narrow=kind == NARROW) for kind in (WIDE, NARROW)}
    right = 12 + notes_width(figure)
    heights = {kind: top + area.height + feet[kind] for kind in feet}
    inner = svg_element("g", _beside(area), marks_of(figure, area, bar), transform=f"translate(0 {svg_number(top)})")
    style = (
        f"--a:{svg_number(lefts[WIDE])}px;--b:{svg_number(lefts[NARROW])}px;--r:{svg_number(right)}px;"
        f"--h:{svg_number(heights[WIDE])}px;--k:{svg_number(heights[NARROW])}px"
    )
    spoken = {"title": title, "desc": f"{description} {_extremes(figure)}".strip()}
    words = [svg_element(kind, html.escape(text), id=f"{name}-{kind}") for kind, text in spoken.items()]
    labels = {"role": "img", "aria_labelledby": f"{name}-title {name}-desc"}
    drawing = svg_element("svg", *words, inner, id=name, class_="drawing", height=heights[WIDE], style=style, **labels)
    return _legend(figure) + _bar_markup(bar) + drawing


def _colour_bar(figure: Any) -> ColourBar | None:
    maps = [trace for trace in figure.data if trace.type == "heatmap"]
    if not maps:
        return None
    axis = figure.layout.coloraxis
    finite = np.concatenate([np.ravel(np.array(trace.z, dtype=np.float64)) for trace in maps])
    finite = finite[np.isfinite(finite)]
    low = float(axis.cmin) if axis.cmin is not None else float(finite.min(initial=0.0))
    high = float(axis.cmax) if axis.cmax is not None else float(finite.max(initial=low))
    high = high if high > low else low + 1
    values = axis.colorbar.tickvals
    if values is None:
        ticks = tuple((value, tick_label(value)) for value in round_ticks(low, high))
    else:
        labels = axis.colorbar.ticktext if axis.colorbar.ticktext is not None else map(tick_label, values)
        ticks = tuple((float(value), str(label)) for value, label in zip(values, labels, strict=True))
    title = " ".join(label_lines(axis.colorbar.title.text or ""))
    return ColourBar(axis.colorscale, low, high, title, ticks)


def _bar_markup(bar: ColourBar | None) -> str:
    """The colour bar, lying above the map."""
    if bar is None:
        return ""
    step = BAR_WIDTH / BAR_COLOURS
    cells = [
        svg_element(
            "rect", x=step * at, y=0, width=step + 0.5, height=9, class_="m", style=bar.paint((at + 0.5) / BAR_COLOURS)
        )
        for at in range(BAR_COLOURS)
    ]
    ticks = [
        svg_element(
            "text", html.escape(label), x=BAR_WIDTH * bar.place(value), y=22, text_anchor="middle", class_="t q"
        )
        for value, label in bar.ticks
    ]
    scale = svg_element("svg", *cells, *ticks, width=BAR_WIDTH, height=26, class_="v")
    return svg_element("p", svg_element("span", html.escape(bar.title)), scale, class_="scale", aria_hidden="true")


def _legend(figure: Any) -> str:
    trace_by_name: dict[str, Any] = {}
    for trace in figure.data:
        if trace.name and trace.showlegend is not False:
            trace_by_name.setdefault(trace.name, trace)
    if len(trace_by_name) < 2 or figure.layout.showlegend is False:
        return ""
    items = [
        svg_element("li", marker_icon(trace), svg_element("span", html.escape(name)))
        for name, trace in trace_by_name.items()
    ]
    return svg_element("ul", *items, class_="legend", aria_hidden="true")


def _top(figure: Any, area: DrawingArea) -> float:
    """Pixels above the drawing: titles of axes, and notes that stand there."""
    above = [note for note in figure.layout.annotations if note.yref == "paper" and note.y >= 1]
    lines = max((len(label_lines(note.text)) for note in above), default=0)
    return max(12.0, 20.0 if any(axis.title for axis in area.y_axes.values()) else 0.0, 8.0 + 13 * lines)


def _shown(label: str, *, narrow: bool) -> str:
    return short_label(label) if narrow else label


def _left(area: DrawingArea, *, narrow: bool) -> float:
    """Pixels that the labels of the leftmost axes need."""
    outer = [axis for key, axis in area.y_axes.items() if axis.labelled and _is_outer(area, key)]
    widths = [text_width(_shown(label, narrow=narrow), LETTER) for axis in outer for _, label in axis.ticks]
    return 12 + max(widths, default=0.0)


def _is_outer(area: DrawingArea, key: str) -> bool:
    """Whether a y axis stands at the left of the drawing."""
    partner = area.x_axes.get("x" + key[1:])
    return partner is None or partner.domain[0] == 0


def _angle(axis: DrawnAxis, *, narrow: bool) -> float:
    """Degrees of an axis' labels: names are turned, tags fit as they are."""
    shortened = all(short_label(label) != label for _, label in axis.ticks)
    return 0.0 if narrow and shortened else axis.angle


def _foot(area: DrawingArea, *, narrow: bool) -> float:
    """Pixels that labels and titles of the lowest axes need."""
    deepest = 0.0
    for axis in (axis for axis in area.x_axes.values() if axis.labelled):
        angle = math.radians(abs(_angle(axis, narrow=narrow)))
        longest = max((text_width(_shown(label, narrow=narrow), LETTER) for _, label in axis.ticks), default=0.0)
        lines = max((len(label_lines(label)) for _, label in axis.ticks), default=1)
        deepest = max(deepest, 14.0 * lines + longest * math.sin(angle))
    return deepest + 10 + (18 if any(axis.title for axis in area.x_axes.values()) else 0)


def _beside(area: DrawingArea) -> str:
    """Grid lines, labels and titles of all axes."""
    parts = []
    for key, axis in area.x_axes.items():
        partner = area.y_axes.get("y" + key[1:]) or next(iter(area.y_axes.values()))
        parts.append(_x_axis(axis, [area.height * (1 - end) for end in partner.domain]))
    for key, axis in area.y_axes.items():
        partner = area.x_axes.get("x" + key[1:]) or next(iter(area.x_axes.values()))
        parts.append(_y_axis(axis, partner.domain, area.height))
    return "".join(parts)


def _x_axis(axis: DrawnAxis, ends: list[float]) -> str:
    foot, head = ends
    parts = []
    feet = {kind: foot + 15 for kind in (WIDE, NARROW)}
    for at, (value, label) in enumerate(axis.ticks):
        x = share(axis.place(value) if not axis.categories else axis.within((value + 0.5) / len(axis.categories)))
        if axis.grid and not axis.categories:
            parts.append(svg_element("line", x1=x, x2=x, y1=foot, y2=head, class_="g"))
        if not axis.labelled:
            continue
        for kind, most in ((WIDE, MANY_WIDE), (NARROW, MANY_NARROW)):
            if at % math.ceil(len(axis.ticks) / most):
                continue
            angle, text = _angle(axis, narrow=kind == NARROW), _shown(label, narrow=kind == NARROW)
            drop = text_width(text, LETTER) * math.sin(math.radians(abs(angle)))
            feet[kind] = max(feet[kind], foot + 15 + drop + 13 * (len(label_lines(text)) - 1))
            if angle:
                parts.append(turned(text, x=x, y=foot + 13, angle=angle, class_=f"t {kind}"))
            else:
                parts.append(written(text, x=x, y=foot + 15, anchor="middle", class_=f"t {kind}"))
    if axis.title:
        middle = share(axis.within(0.5))
        parts += [
            written(axis.title, x=middle, y=depth + 18, anchor="middle", class_=f"t q {kind}")
            for kind, depth in feet.items()
        ]
    return "".join(parts)


def _y_axis(axis: DrawnAxis, across: tuple[float, float], height: float) -> str:
    left, right = across
    parts = []
    for value, label in axis.ticks:
        y = height * (1 - (axis.place(value) if not axis.categories else axis.place(label)))
        if axis.grid and not axis.categories:
            parts.append(svg_element("line", x1=share(left), x2=share(right), y1=y, y2=y, class_="g"))
        if not axis.labelled:
            continue
        short = short_label(label)
        label_forms = [(label, WIDE), (short, NARROW)] if short != label else [(label, "")]
        parts += [
            written(text, x=share(left), y=y + 4, anchor="end", shift=-7, class_=f"t {kind}".strip())
            for text, kind in label_forms
        ]
    if axis.title:
        top = height * (1 - axis.domain[1])
        title = f"{axis.title} ↓" if axis.categories else axis.title
        parts.append(written(title, x=share(left), y=top - 8, anchor="start", class_="t q"))
    return "".join(parts)


def _extremes(figure: Any) -> str:
    """The highest and the lowest mark of the first trace that says something, for those who do not see the figure."""
    for trace in figure.data:
        hovers = said_by(trace) if trace.hovertext is not None else []
        in_rows = figure.layout.yaxis.ticktext is not None
        values = np.ravel(
            np.array(trace.z if trace.type == "heatmap" else trace.x if in_rows else trace.y, dtype=object)
        )
        labelled = [(float(v), text) for v, text in zip(values, hovers, strict=False) if _is_number(v) and text]
        if len(labelled) > 1:
            return f"Highest: {max(labelled)[1]}. Lowest: {min(labelled)[1]}."
    return ""


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and math.isfinite(value)
