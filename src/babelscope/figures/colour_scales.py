"""Colours of values, on a light and on a dark page."""

from collections.abc import Sequence

Scale = Sequence[tuple[float | int, str]]
"""(place in 0 … 1, colour) pairs, the lowest place first."""

SEQUENTIAL = ((0.0, "#E6F0F6"), (0.35, "#9CC4DE"), (0.7, "#3F86B8"), (1.0, "#0A4470"))
"""From little, near the colour of a light page, to much."""
DIVERGING = ((0.0, "#08519C"), (0.25, "#6BAED6"), (0.5, "#F7F5F0"), (0.75, "#FDAE61"), (1.0, "#B35806"))
DARK = {
    "#0072B2": "#3B8FD4",
    "#E6F0F6": "#22303B",
    "#9CC4DE": "#235273",
    "#3F86B8": "#3F8CC4",
    "#0A4470": "#BCDFF6",
    "#08519C": "#6BAED6",
    "#6BAED6": "#2B6CA3",
    "#F7F5F0": "#23272E",
    "#FDAE61": "#A85F16",
    "#B35806": "#FDAE61",
}
"""What a dark page puts in the place of a colour: scales run from dark to light there, and blue is lifted."""


def dark_colour(colour: str) -> str:
    """The colour that stands for this one on a dark page; the same where it is legible on both."""
    return DARK.get(colour.upper(), colour)


def dark_scale(scale: Scale) -> Scale:
    """The scale with its colours for a dark page."""
    return tuple((place, dark_colour(colour)) for place, colour in scale)


def colour_at(scale: Scale, place: float | int) -> str:
    """Colour of a place in 0 … 1, by straight lines between neighbouring colours' red, green and blue.

    A place outside of 0 … 1 has the colour of the nearer end.
    """
    place = min(max(float(place), float(scale[0][0])), float(scale[-1][0]))
    above = next(at for at in range(1, len(scale)) if place <= scale[at][0])
    (low, first), (high, second) = scale[above - 1], scale[above]
    weight = (place - low) / (high - low)
    mixed = (round(a + weight * (b - a)) for a, b in zip(_channels(first), _channels(second), strict=True))
    return "#" + "".join(f"{channel:02X}" for channel in mixed)


def luminance(colour: str) -> float:
    """Relative luminance of a colour such as `#0072B2`, from 0 (black) to 1 (white), as WCAG 2 defines it."""
    parts = [channel / 255 for channel in _channels(colour)]
    linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in parts]
    return sum(weight * x for weight, x in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def is_dark(colour: str) -> bool:
    """Whether white text has the higher contrast on this colour than black text."""
    return luminance(colour) < 0.179


def _channels(colour: str) -> list[int]:
    return [int(colour[at : at + 2], 16) for at in (1, 3, 5)]
