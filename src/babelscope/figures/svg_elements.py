"""Elements of SVG as text: escaped, in two colours for two kinds of page, in two wordings for two widths."""

import html
import math
from collections.abc import Sequence

from babelscope.figures.colour_scales import dark_colour
from babelscope.figures.style import Real

WIDE, NARROW = "w", "s"
"""Classes of what is shown only on a wide and only on a narrow screen."""
SANS_WIDTH = 0.56
"""Mean width of a letter of a sans-serif face, over its size; letters of East Asian scripts are as wide as high."""
FIRST_WIDE_LETTER = 0x2E80


def svg_element(name: str, *content: str, **attributes: str | Real | None) -> str:
    """An element; `class_` is class, an underscore is a dash, None leaves an attribute out. Content is markup."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(svg_number(value), quote=True)}"'
        for key, value in attributes.items()
        if value is not None
    )
    return f"<{name}{written}>{''.join(content)}</{name}>"


def svg_number(value: str | Real) -> str:
    """A coordinate with at most two decimals; text as it is."""
    return value if isinstance(value, str) else f"{value:.2f}".rstrip("0").rstrip(".")


def share(place: Real) -> str:
    """A place in 0 … 1 as a share of the width."""
    return f"{svg_number(100 * place)}%"


def pair_of_colours(colour: str | None) -> str:
    """A mark's colour on a light and on a dark page, for the style attribute; None is the page's quiet ink."""
    if colour is None:
        return "--l:var(--quiet);--d:var(--quiet)"
    return f"--l:{colour};--d:{dark_colour(colour)}"


def hover(text: str) -> str:
    """What a mark says when it is pointed at."""
    return svg_element("title", html.escape(text)) if text else ""


def text_width(text: str, size: Real) -> float:
    """About how many pixels a text takes in a sans-serif face."""
    return size * sum(1.0 if ord(letter) >= FIRST_WIDE_LETTER else SANS_WIDTH for letter in text)


def label_lines(text: str) -> list[str]:
    """A plotly text as its lines, without plotly's own markup."""
    return [html.unescape(line) for line in text.replace("<br />", "<br>").split("<br>")]


def written(text: str, *, x: str, y: Real, anchor: str, class_: str = "t", shift: Real = 0) -> str:
    """A text at a share of the width; lines below the first stand under it. shift: pixels to the right."""
    lines = label_lines(text)
    spans = html.escape(lines[0]) + "".join(svg_element("tspan", html.escape(line), x=x, dy=13) for line in lines[1:])
    return svg_element("text", spans, x=x, y=y, dx=shift or None, text_anchor=anchor, class_=class_)


def turned(text: str, *, x: str, y: Real, angle: Real, class_: str = "t") -> str:
    """A text that ends at a share of the width and is turned about its end."""
    line = svg_element(
        "text", html.escape(" ".join(label_lines(text))), text_anchor="end", transform=f"rotate({svg_number(angle)})"
    )
    return svg_element("svg", line, x=x, y=y, class_=f"v {class_}")


def symbol(name: str, size: Real) -> tuple[str, bool]:
    """Path of one of plotly's symbols about 0, 0, and whether it is drawn by its outline; size: pixels across."""
    r = float(size) / 2
    shape = name.removesuffix("-open")
    if shape == "circle":
        half = f"a{svg_number(r)} {svg_number(r)} 0 1 0"
        return f"M{svg_number(-r)} 0{half} {svg_number(2 * r)} 0{half} {svg_number(-2 * r)} 0", shape != name
    corners = {
        "square": [(-0.88, -0.88), (0.88, -0.88), (0.88, 0.88), (-0.88, 0.88)],
        "diamond": [(0, -1.2), (1.2, 0), (0, 1.2), (-1.2, 0)],
        "triangle-up": [(0, -1.1), (1.1, 0.8), (-1.1, 0.8)],
        "triangle-down": [(0, 1.1), (1.1, -0.8), (-1.1, -0.8)],
        "pentagon": [(1.1 * math.sin(math.tau * at / 5), -1.1 * math.cos(math.tau * at / 5)) for at in range(5)],
        "star": [
            (radius * math.sin(math.pi * at / 5), -radius * math.cos(math.pi * at / 5))
            for at, radius in enumerate([1.25, 0.5] * 5)
        ],
    }
    if shape in corners:
        return _path(corners[shape], r) + "Z", shape != name
    strokes = {
        "x": [[(-0.8, -0.8), (0.8, 0.8)], [(-0.8, 0.8), (0.8, -0.8)]],
        "cross": [[(-1, 0), (1, 0)], [(0, -1), (0, 1)]],
        "line-ns": [[(0, -1), (0, 1)]],
        "line-ew": [[(-1, 0), (1, 0)]],
    }
    return "".join(_path(stroke, r) for stroke in strokes[shape.removesuffix("-thin")]), True


def _path(corners: Sequence[tuple[Real, Real]], r: float) -> str:
    return "M" + "L".join(f"{svg_number(r * x)} {svg_number(r * y)}" for x, y in corners)
