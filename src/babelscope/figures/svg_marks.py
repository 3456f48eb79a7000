"""The marks of a figure as SVG: cells, bars, points, lines, shapes and notes."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from babelscope.figures.colour_scales import Scale, colour_at, dark_scale, is_dark
from babelscope.figures.style import CYCLE, Real
from babelscope.figures.svg_axes import DrawnAxis
from babelscope.figures.svg_elements import (
    WIDE,
    hover,
    pair_of_colours,
    share,
    svg_element,
    svg_number,
    symbol,
    text_width,
    written,
)

DASHES = {"dash": "7 5", "dot": "2 4", "dashdot": "7 4 2 4"}
CROWDED = 12
"""Columns of a map above which its numbers do not fit on a narrow screen."""
LINE_UNITS = 1000
"""Width of the grid in which lines are drawn; it is stretched to the width of the figure."""


@dataclass(frozen=True)
class DrawingArea:
    """Where the marks of a figure lie: shares of its width, pixels of its height."""

    x_axes: Mapping[str, DrawnAxis]
    """Axes from left to right by their short names."""
    y_axes: Mapping[str, DrawnAxis]
    """Axes from the bottom to the top."""
    height: float
    """Pixels from the top of the highest axis to the foot of the lowest."""

    def across(self, trace: Any, value: Any) -> float:
        """Share of the width at which a value of a trace lies."""
        return self.x_axes[trace.xaxis or "x"].place(value)

    def down(self, trace: Any, value: Any) -> float:
        """Pixels from the top at which a value of a trace lies."""
        return self.height * (1 - self.y_axes[trace.yaxis or "y"].place(value))

    def fixed_place(self, reference: str, value: Any) -> float:
        """Share of the width or height of a shape's or note's coordinate: on an axis, its domain, or the whole."""
        if reference == "paper":
            return float(value)
        name, _, of_domain = reference.partition(" ")
        axis = (self.x_axes if name.startswith("x") else self.y_axes)[name]
        return axis.within(value) if of_domain else axis.place(value)


@dataclass(frozen=True)
class ColourBar:
    """Colours of the cells of a map and what they stand for."""

    scale: Scale
    """From the least to the greatest value."""
    low: float
    """Value of the scale's first colour."""
    high: float
    """Value of its last colour."""
    title: str
    """What is coloured, with its unit."""
    ticks: tuple[tuple[float, str], ...]
    """(value, label) pairs."""

    def place(self, value: Real) -> float:
        """Place of a value on the scale, 0 to 1; values beyond an end have that of the end."""
        return float(np.clip((float(value) - self.low) / (self.high - self.low), 0, 1))

    def paint(self, place: Real) -> str:
        """Colour of a place on a light and on a dark page, for the style attribute."""
        return f"--l:{colour_at(self.scale, place)};--d:{colour_at(dark_scale(self.scale), place)}"

    def ink(self, value: Real) -> str:
        """Classes of a number on a cell of this value: dark or light on a light page, dark or light on a dark one."""
        place = self.place(value)
        grounds = (colour_at(scale, place) for scale in (self.scale, dark_scale(self.scale)))
        return " ".join(mode + ("w" if is_dark(ground) else "b") for mode, ground in zip("ld", grounds, strict=True))


def marks_of(figure: Any, area: DrawingArea, bar: ColourBar | None) -> str:
    """All marks of a figure, those drawn first at the bottom."""
    parts = [*_shapes(figure, area, "below")]
    draw: dict[str, Callable[[Any, int], Iterator[str]]] = {
        "heatmap": lambda trace, _: _cells(trace, area, bar),
        "bar": lambda trace, at: _bars(trace, area, at),
        "scatter": lambda trace, _: _points(trace, area),
    }
    for at, trace in enumerate(figure.data):
        parts += draw[trace.type](trace, at)
    return "".join([*parts, *_shapes(figure, area, "above"), *_notes(figure, area)])


def said_by(trace: Any) -> list[str]:
    """What each mark of a trace says when it is pointed at; empty where it says nothing of its own."""
    n = len(trace.x) if trace.x is not None else 0
    return [""] * n if trace.hovertext is None else [str(text) for text in np.ravel(np.array(trace.hovertext))]


def trace_colour(trace: Any) -> str | None:
    """Colour of a trace's marks, of its line where it has none."""
    for styled in (trace.marker, trace.line if trace.type == "scatter" else None):
        if styled is not None and isinstance(styled.color, str):
            return styled.color
    outline = trace.marker.line.color
    return outline if isinstance(outline, str) else None


def _cells(trace: Any, area: DrawingArea, bar: ColourBar | None) -> Iterator[str]:
    assert bar is not None, "a map without a colour axis"
    z = np.array(trace.z, dtype=np.float64)
    x_axis, y_axis = area.x_axes[trace.xaxis or "x"], area.y_axes[trace.yaxis or "y"]
    texts = None if trace.texttemplate is None else np.array(trace.text, dtype=str)
    says = None if trace.hovertext is None else np.array(trace.hovertext, dtype=str)
    kind = f" {WIDE}" if z.shape[1] > CROWDED else ""
    for row, column in np.ndindex(z.shape):
        left, right = sorted(x_axis.place(column + side) for side in (-0.5, 0.5))
        top, bottom = sorted(area.height * (1 - y_axis.place(row + side)) for side in (-0.5, 0.5))
        hover_text = "" if says is None else str(says[row, column])
        value = float(z[row, column])
        look = {"class_": "c", "style": bar.paint(bar.place(value))} if math.isfinite(value) else {"class_": "c e"}
        box = {"x": share(left), "y": top, "width": share(right - left), "height": bottom - top}
        yield svg_element("rect", hover(hover_text), **box, **look)
        text = "" if texts is None else str(texts[row, column])
        if text and math.isfinite(value):
            middle = {"x": share((left + right) / 2), "y": (top + bottom) / 2 + 3.5}
            yield written(text, **middle, anchor="middle", class_=f"n {bar.ink(value)}{kind}")


def _bars(trace: Any, area: DrawingArea, at: int) -> Iterator[str]:
    lying = trace.orientation == "h"
    style = pair_of_colours(trace_colour(trace) or CYCLE[at % len(CYCLE)])
    widths = trace.width if trace.width is not None else 0.62
    for place, (x, y, hover_text) in enumerate(zip(trace.x, trace.y, said_by(trace), strict=True)):
        half = (widths if isinstance(widths, int | float) else widths[place]) / 2
        if lying:
            left, right = sorted((area.across(trace, 0), area.across(trace, x)))
            top, bottom = sorted((area.down(trace, y - half), area.down(trace, y + half)))
        else:
            left, right = area.across(trace, x - half), area.across(trace, x + half)
            top, bottom = sorted((area.down(trace, 0), area.down(trace, y)))
        if np.isfinite([left, right, top, bottom]).all():
            yield svg_element(
                "rect", hover(hover_text), x=share(left), y=top, width=share(right - left), height=bottom - top,
                class_="m", style=style, opacity=trace.marker.opacity,
            )  # fmt: skip
    yield from _arms(trace, area, None)


def _points(trace: Any, area: DrawingArea) -> Iterator[str]:
    mode = trace.mode or "lines"
    xs = [area.across(trace, x) for x in trace.x]
    ys = [area.down(trace, y) for y in trace.y]
    if "lines" in mode:
        yield _line(trace, xs, ys, area.height)
    yield from _arms(trace, area, trace_colour(trace))
    if "text" in mode:
        kind = f" {WIDE}" if len(set(xs)) > CROWDED else ""
        for x, y, text in zip(xs, ys, trace.text, strict=True):
            yield written(
                str(text), x=share(x), y=y + 3.5 - 6 * str(text).count("<br>"), anchor="middle", class_=f"n{kind}"
            )
    if "markers" in mode:
        # Colour and opacity stand once, on the group: a mark has only its place and what it says.
        points = [
            _marker(trace, at, x=share(x), y=y, said=hover(hover_text))
            for at, (x, y, hover_text) in enumerate(zip(xs, ys, said_by(trace), strict=True))
            if np.isfinite([x, y]).all()
        ]
        yield svg_element("g", *points, **_look(trace))


def marker_icon(trace: Any, height: Real = 14) -> str:
    """A trace's mark, line or bar on its own, for the legend."""
    style = pair_of_colours(trace_colour(trace))
    parts = []
    if trace.type == "bar":
        parts.append(
            svg_element("rect", x=2, y=3, width=18, height=8, class_="m", style=style, opacity=trace.marker.opacity)
        )
    elif "lines" in (trace.mode or "lines"):
        dash = DASHES.get(trace.line.dash or "")
        parts.append(
            svg_element(
                "path", d="M1 7H21", class_="o", style=style, stroke_width=trace.line.width or 2, stroke_dasharray=dash
            )
        )
    if trace.type == "scatter" and "markers" in (trace.mode or ""):
        parts.append(svg_element("g", _marker(trace, 0, x="11", y=7, said="", largest=12), **_look(trace)))
    return svg_element("svg", *parts, width=22, height=height, aria_hidden="true")


def _look(trace: Any) -> dict[str, Any]:
    """Colours and opacity of a trace's points."""
    opacity = trace.marker.opacity
    # Of each point, not of the group: points that lie on each other are seen.
    return {"style": pair_of_colours(trace_colour(trace)), "fill_opacity": opacity, "stroke_opacity": opacity}


def _marker(trace: Any, at: int, *, x: str, y: Real, said: str, largest: Real = math.inf) -> str:
    """One point of a trace; largest: pixels across that it may have."""
    kind, size = _of(trace.marker.symbol, at) or "circle", min(float(_of(trace.marker.size, at) or 6), largest)
    if kind == "circle":
        return svg_element("circle", said, cx=x, cy=y, r=size / 2, class_="m")
    path, by_outline = symbol(kind, size)
    stroke = {"stroke_width": trace.marker.line.width or max(1.5, size / 5)} if by_outline else {}
    return svg_element(
        "svg", svg_element("path", said, d=path, class_="o" if by_outline else "m", **stroke), x=x, y=y, class_="v"
    )


def _line(trace: Any, xs: Sequence[float], ys: Sequence[float], height: float) -> str:
    """A line through all points that are known; it breaks where one is not."""
    finite = np.isfinite(xs) & np.isfinite(ys)
    words, pen = [], "M"
    for x, y, is_finite in zip(xs, ys, finite, strict=True):
        if is_finite:
            words.append(f"{pen}{svg_number(LINE_UNITS * x)} {svg_number(y)}")
        pen = "L" if is_finite else "M"
    path = svg_element(
        "path", d="".join(words), class_="o", style=pair_of_colours(trace.line.color or trace_colour(trace)),
        stroke_width=trace.line.width or 2, stroke_dasharray=DASHES.get(trace.line.dash or ""), opacity=trace.opacity,
        vector_effect="non-scaling-stroke",
    )  # fmt: skip
    box = f"0 0 {LINE_UNITS} {svg_number(height)}"
    return svg_element("svg", path, width="100%", height=height, viewBox=box, preserveAspectRatio="none", class_="v")


def _arms(trace: Any, area: DrawingArea, colour: str | None) -> Iterator[str]:
    """Intervals through the points of a trace."""
    for letter in "xy":
        arms = getattr(trace, f"error_{letter}")
        if arms.array is None:
            continue
        minus = arms.array if arms.arrayminus is None else arms.arrayminus
        for x, y, more, less in zip(trace.x, trace.y, arms.array, minus, strict=True):
            if not more and not less:
                continue
            ends = [(x - less, x + more), (y, y)] if letter == "x" else [(x, x), (y - less, y + more)]
            (x1, x2), (y1, y2) = [area.across(trace, v) for v in ends[0]], [area.down(trace, v) for v in ends[1]]
            if np.isfinite([x1, x2, y1, y2]).all():
                style = pair_of_colours(colour) if colour else "--l:var(--ink);--d:var(--ink)"
                yield svg_element(
                    "line", x1=share(x1), x2=share(x2), y1=y1, y2=y2, class_="o", style=style,
                    stroke_width=arms.thickness or 1.5,
                )  # fmt: skip


def _shapes(figure: Any, area: DrawingArea, layer: str) -> Iterator[str]:
    for shape in figure.layout.shapes:
        if (shape.layer or "above") != layer:
            continue
        left, right = sorted(area.fixed_place(shape.xref or "x", x) for x in (shape.x0, shape.x1))
        top, bottom = sorted(area.height * (1 - area.fixed_place(shape.yref or "y", y)) for y in (shape.y0, shape.y1))
        width = 1.5 if shape.line.width is None else shape.line.width
        colour = shape.line.color
        style = pair_of_colours(colour) if colour else "--l:var(--ink);--d:var(--ink)"
        stroke = {"stroke_width": width, "stroke_dasharray": DASHES.get(shape.line.dash or "")}
        if shape.type == "line":
            ends = {"x1": share(left), "x2": share(right), "y1": top, "y2": bottom}
            yield svg_element("line", **ends, class_="o", style=style, **stroke)
            continue
        box = {"x": share(left), "y": top, "width": share(right - left), "height": bottom - top}
        if shape.fillcolor:
            yield svg_element("rect", **box, class_="m", style=pair_of_colours(shape.fillcolor), opacity=shape.opacity)
        if width:
            yield svg_element("rect", **box, class_="o", style=style, **stroke)


def _notes(figure: Any, area: DrawingArea) -> Iterator[str]:
    anchors = {"left": "start", "right": "end", "center": "middle", "auto": "middle", None: "middle"}
    for note in figure.layout.annotations:
        x = area.fixed_place(note.xref or "x", note.x)
        y = area.height * (1 - area.fixed_place(note.yref or "y", note.y))
        up = {"bottom": -6 - 13 * note.text.count("<br>"), "top": 13}.get(note.yanchor or "", 4)
        yield written(note.text, x=share(x), y=y + up, anchor=anchors[note.xanchor])


def _of(value: Any, at: int) -> Any:
    """A trace's one value for all marks, or that of one mark."""
    return value[at] if isinstance(value, list | tuple | np.ndarray) else value


def notes_width(figure: Any) -> float:
    """Pixels right of the drawing that notes need."""
    beyond = [note for note in figure.layout.annotations if note.xref == "paper" and note.x > 1]
    return max((text_width(line, 11) for note in beyond for line in note.text.split("<br>")), default=0.0)
