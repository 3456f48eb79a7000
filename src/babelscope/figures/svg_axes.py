"""Axes of a drawing: where a value lies on them and what is written beside them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from babelscope.axes import Float
from babelscope.figures.style import Real

FEWEST_TICKS = 4
"""Ticks that an axis has at least where it chooses them itself."""
PADDING = 0.05
"""Share of an axis left free beyond the outermost marks."""


@dataclass(frozen=True)
class DrawnAxis:
    """One axis. Places run from 0 to 1: from left to right, from the bottom to the top."""

    ends: tuple[float, float]
    """Values at the places 0 and 1; their logarithms to base 10 on a logarithmic axis."""
    domain: tuple[float, float]
    """Share of the drawing that the axis spans."""
    logarithmic: bool
    """Whether places go with the logarithm of a value."""
    categories: tuple[str, ...]
    """What the values 0, 1, 2 … stand for; empty on an axis of numbers."""
    ticks: tuple[tuple[float, str], ...]
    """(value, label) pairs."""
    title: str
    """What the axis shows, with its unit."""
    angle: float
    """Degrees by which labels are turned."""
    grid: bool
    """Whether a line goes from each tick through the drawing."""
    labelled: bool
    """Whether labels are written beside it; an axis shared with the one below has none."""

    def place(self, value: Any) -> float:
        """Share of the drawing at which a value lies; NaN where it has none, and for None, which ends a line."""
        if value is None:
            return float("nan")
        if isinstance(value, str):
            value = self.categories.index(value)
        elif self.logarithmic:
            value = np.log10(value) if value > 0 else np.nan
        first, last = self.ends
        return self.within((float(value) - first) / (last - first))

    def within(self, share: Real) -> float:
        """Share of the drawing of a share of the axis."""
        low, high = self.domain
        return low + (high - low) * float(share)


def axes_of(figure: Any, letter: str) -> dict[str, DrawnAxis]:
    """All x or y axes of a figure by their short names, such as `x2`."""
    # A layout lists its keys in another order in each process.
    listed = sorted(figure.layout, key=lambda key: (len(key), key))
    names = [key for key in listed if key.startswith(f"{letter}axis") and figure.layout[key].domain]
    short = [key.replace("axis", "") for key in names] or [letter]
    layouts = {key: figure.layout[key.replace(letter, f"{letter}axis", 1)] for key in short}
    values = {key: _values(figure, key, letter) for key in short}
    for key, layout in layouts.items():
        if layout.matches in values:
            shared = np.concatenate([values[key], values[layout.matches]])
            values[key] = values[layout.matches] = shared
    return {key: _axis(figure, layouts[key], values[key], key, letter) for key in short}


def round_ticks(low: Real, high: Real, step: Real | None = None) -> list[float]:
    """Round values from low to high, at least `FEWEST_TICKS` of them unless the step is given."""
    if step is None:
        rough = (high - low) / FEWEST_TICKS
        power = 10.0 ** np.floor(np.log10(rough))
        step = float(max(base * power for base in (1, 2, 2.5, 5) if base * power <= rough * (1 + 1e-9)))
    first, last = int(np.ceil(low / step - 1e-9)), int(np.floor(high / step + 1e-9))
    return [float(at * step) for at in range(first, last + 1)]


def tick_label(value: Real) -> str:
    """A tick's value with a true minus sign and a narrow space between thousands."""
    text = f"{float(value):,.0f}" if abs(value) >= 1e4 and float(value).is_integer() else f"{float(value):.6g}"
    return text.replace(",", "\u202f").replace("-", "−")


def _axis(figure: Any, layout: Any, values: Float[np.ndarray, " value"], key: str, letter: str) -> DrawnAxis:
    categories = _categories(figure, key, letter, is_asked=layout.type == "category")
    logarithmic = layout.type == "log"
    if layout.range is not None:
        ends = (float(layout.range[0]), float(layout.range[1]))
    elif categories:
        ends = (-0.5, len(categories) - 0.5)
    else:
        ends = _ends(values, logarithmic, to_zero=layout.rangemode == "tozero")
    if layout.tickvals is not None:
        labels = layout.ticktext if layout.ticktext is not None else map(tick_label, layout.tickvals)
        ticks = tuple((float(value), str(label)) for value, label in zip(layout.tickvals, labels, strict=True))
    elif categories:
        ticks = tuple((float(at), label) for at, label in enumerate(categories))
    else:
        ticks = tuple((value, tick_label(value)) for value in _own_ticks(ends, logarithmic, layout.dtick))
    low, high = sorted(ends)
    scaled = [(np.log10(value) if logarithmic else value, label, value) for value, label in ticks]
    return DrawnAxis(
        ends=ends,
        domain=tuple(layout.domain) if layout.domain else (0.0, 1.0),
        logarithmic=logarithmic,
        categories=categories,
        ticks=tuple((value, label) for at, label, value in scaled if low - 1e-9 <= at <= high + 1e-9),
        title=layout.title.text or "",
        angle=float(layout.tickangle or 0),
        grid=layout.showgrid is not False,
        labelled=layout.showticklabels is not False,
    )


def _values(figure: Any, key: str, letter: str) -> Float[np.ndarray, " value"]:
    """All numbers that an axis has to show: marks, the ends of their intervals, and the foot of bars."""
    shown_values: list[Real] = []
    for trace in figure.data:
        if (getattr(trace, f"{letter}axis") or letter) != key or getattr(trace, letter) is None:
            continue
        numbers = [float(value) for value in getattr(trace, letter) if not isinstance(value, str) and value is not None]
        shown_values += numbers
        if trace.type == "bar" and (trace.orientation == "h") == (letter == "x"):
            shown_values.append(0.0)
        arms = getattr(trace, f"error_{letter}", None) if trace.type != "heatmap" else None
        if arms is not None and arms.array is not None and len(arms.array) == len(numbers):
            minus = arms.array if arms.arrayminus is None else arms.arrayminus
            shown_values += [value + arm for value, arm in zip(numbers, arms.array, strict=True)]
            shown_values += [value - arm for value, arm in zip(numbers, minus, strict=True)]
    values = np.array(shown_values, dtype=np.float64)
    return values[np.isfinite(values)]


def _categories(figure: Any, key: str, letter: str, *, is_asked: bool) -> tuple[str, ...]:
    """Categories in the order in which they come; an axis whose values are text has them without being asked to."""
    traces = [trace for trace in figure.data if (getattr(trace, f"{letter}axis") or letter) == key]
    values = [value for trace in traces for value in (() if getattr(trace, letter) is None else getattr(trace, letter))]
    return tuple(dict.fromkeys(map(str, values))) if is_asked or any(isinstance(value, str) for value in values) else ()


def _ends(values: Float[np.ndarray, " value"], logarithmic: bool, *, to_zero: bool) -> tuple[float, float]:
    if logarithmic:
        values = np.log10(values[values > 0])
    if not values.size:
        return (0.0, 1.0)
    low, high = float(values.min()), float(values.max())
    padding = PADDING * (high - low) or 0.5
    if to_zero and not logarithmic:
        return (min(low, 0.0), max(high, 0.0) + padding)
    return (low - (padding if low else 0.0), high + padding)


def _own_ticks(ends: Sequence[float], logarithmic: bool, step: Any) -> list[float]:
    low, high = sorted(ends)
    if not logarithmic:
        return round_ticks(low, high, step if isinstance(step, int | float) else None)
    bases = (1, 2, 5) if high - low < 2 else (1,)
    powers = range(int(np.floor(low)), int(np.ceil(high)) + 1)
    return [base * 10.0**power for power in powers for base in bases]
