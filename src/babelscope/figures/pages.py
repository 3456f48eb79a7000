"""Write a figure as an HTML page."""

from pathlib import Path

from plotly.graph_objects import Figure
from plotly.offline import get_plotlyjs

from babelscope.files.writing import write_text

PLOTLY = "plotly.min.js"


def write_figure(figure: Figure, path: str | Path) -> Path:
    """Write a page with one figure, whole or not at all; all pages of a folder share one copy of plotly.js beside them.

    The same figure gives the same bytes. Raises PrerequisiteError if the disk refuses.
    """
    path = Path(path)
    if not (path.parent / PLOTLY).is_file():
        write_text(path.parent / PLOTLY, get_plotlyjs())
    return write_text(path, figure.to_html(include_plotlyjs="directory", div_id="figure"))
