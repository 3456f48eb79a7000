"""Write figures as an HTML page."""

import html
from collections.abc import Sequence
from pathlib import Path

from plotly.graph_objects import Figure

from babelscope.figures.figure_caption import FigureCaption
from babelscope.figures.html_page import html_page
from babelscope.figures.svg_elements import svg_element
from babelscope.figures.svg_figure import figure_svg
from babelscope.files.writing import write_text


def write_figure(figure: Figure, path: str | Path, caption: FigureCaption) -> Path:
    """Write a page with one figure; see `write_figures`."""
    return write_figures([(figure, caption)], path, title=caption.title)


def write_figures(figures: Sequence[tuple[Figure, FigureCaption]], path: str | Path, *, title: str) -> Path:
    """Write a page with figures one below the other, whole or not at all; it needs no network, and no JavaScript.

    title: heading of the page; of several figures each has its own below it. The same figures give the same bytes.
    Raises MeasurementError for a figure that cannot be drawn (`figure_svg`); PrerequisiteError if the disk refuses.
    """
    header = svg_element(
        "header", svg_element("p", "babelscope", class_="brand"), svg_element("h1", html.escape(title))
    )
    blocks = [
        svg_element("h2", html.escape(caption.title)) * (len(figures) > 1)
        + svg_element(
            "figure",
            svg_element("div", svg_element("div", _drawn(figure, caption, number), class_="panel"), class_="plots"),
            svg_element("figcaption", svg_element("p", html.escape(caption.shows))),
        )
        for number, (figure, caption) in enumerate(figures, start=1)
    ]
    says = " ".join(caption.shows for _, caption in figures[:1])
    return write_text(Path(path), html_page("\n".join([header, *blocks]), title=title, says=says))


def _drawn(figure: Figure, caption: FigureCaption, number: int) -> str:
    return figure_svg(figure, name=f"figure-{number}", title=caption.title, description=caption.shows)
