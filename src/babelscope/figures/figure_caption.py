"""What a figure says of itself."""

from typing import NamedTuple


class FigureCaption(NamedTuple):
    """For a reader who has nothing but the figure's page."""

    title: str
    """Its heading, a few words."""
    shows: str
    """What is drawn, how to read it, and what it is compared with, in sentences."""
