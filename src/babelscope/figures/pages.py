"""Write figures as an HTML page, and read them back out of it."""

import html
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from plotly.graph_objects import Figure

from babelscope.errors import ArtifactError
from babelscope.figures.figure_caption import FigureCaption
from babelscope.figures.html_page import html_page
from babelscope.figures.svg_elements import svg_element
from babelscope.figures.svg_figure import figure_svg
from babelscope.files.strict_json import nan_as_null, parse_json
from babelscope.files.writing import write_text

OPEN, CLOSE = '<script type="application/json" class="figure">', "</script>"
"""What stands around a figure's values in a page: no browser runs a script of this type."""
MOST_BYTES = 64 * 2**20
"""Of a page that is read back: a figure takes tens of kilobytes."""
AGAIN = "make it again with the command that wrote it"


def write_figure(figure: Figure, path: str | Path, caption: FigureCaption) -> Path:
    """Write a page with one figure; see `write_figures`."""
    return write_figures([(figure, caption)], path, title=caption.title)


def write_figures(figures: Sequence[tuple[Figure, FigureCaption]], path: str | Path, *, title: str) -> Path:
    """Write a page with figures one below the other, whole or not at all; it needs no network, and no JavaScript.

    title: heading of the page; of several figures each has its own below it. The same figures give the same bytes.
    Each figure's values and layout are in the page too, as plotly has them (`read_figures`).
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
        + _values(figure, caption)
        for number, (figure, caption) in enumerate(figures, start=1)
    ]
    says = " ".join(caption.shows for _, caption in figures[:1])
    return write_text(Path(path), html_page("\n".join([header, *blocks]), title=title, says=says))


def _drawn(figure: Figure, caption: FigureCaption, number: int) -> str:
    return figure_svg(figure, name=f"figure-{number}", title=caption.title, description=caption.shows)


def _values(figure: Figure, caption: FigureCaption) -> str:
    """A figure and its caption as JSON; its template, which is the same for all, stays out."""
    layout: Any = figure.layout
    style = {name: value for name, value in layout.to_plotly_json().items() if name != "template"}
    tree = {**caption._asdict(), "data": [trace.to_plotly_json() for trace in figure.data], "layout": style}
    text = json.dumps(nan_as_null(tree), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    # Inside a script element only the sign that could end it has to be written otherwise.
    return OPEN + text.replace("<", "\\u003c") + CLOSE


def read_figures(path: str | Path) -> list[tuple[Figure, FigureCaption]]:
    """The figures of a page that `write_figures` wrote, with their captions; none for a page without them.

    Only values are read, never markup: drawn again, they give the same drawing. Raises ArtifactError, in one line, for
    values that plotly does not take.
    """
    try:
        with Path(path).open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as err:
        raise ArtifactError(f"{path}: cannot be read ({err.strerror}); expected a page of figures; check it") from err
    if len(content) > MOST_BYTES:
        raise ArtifactError(f"{path}: is above {MOST_BYTES >> 20} MiB; expected a page of figures; {AGAIN}")
    text = content.decode("utf-8", errors="replace")
    figures = []
    for number, part in enumerate(re.findall(re.escape(OPEN) + "(.*?)" + re.escape(CLOSE), text, re.DOTALL), start=1):
        place = f"{path}, figure {number}"
        tree = parse_json(part, place, advice=AGAIN)
        parts = tree if isinstance(tree, dict) else {}
        if [type(parts.get(name)) for name in ("title", "shows", "data", "layout")] != [str, str, list, dict]:
            raise ArtifactError(f"{place}: is no figure; expected title, shows, data and layout; {AGAIN}")
        try:
            figure = Figure(data=parts["data"], layout=parts["layout"])
        except (ValueError, TypeError) as err:
            fault = " ".join(str(err).split())[:120]
            raise ArtifactError(f"{place}: plotly does not take it ({fault}); {AGAIN}") from None
        figures.append((figure, FigureCaption(parts["title"], parts["shows"])))
    return figures
