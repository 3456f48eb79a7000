"""Pieces of HTML: escaped text, tables, figures with captions, sections."""

import csv
import html
import io
import itertools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote

import numpy as np

from babelscope.axes import Float
from babelscope.figures import Figure, figure_svg, language_name
from babelscope.report.wording import NOT_MEASURED, plain, together

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ufffe\uffff\ud800-\udfff]")
"""Characters that a page may not hold, or that would end a line unseen."""


UNQUOTED = "!$()*,/:;=?@[]{}'"
"""Signs that may stand in an address as they are."""
LISTED = 24
"""Entries of a list that are all shown."""
MANY = 6
"""Names with values, such as languages with counts, of which more stand on lines together and not each on its own."""


class Markup(str):
    """Text that is HTML already; every other text is escaped on its way into the page."""

    __slots__ = ()


@dataclass(frozen=True)
class Caption:
    """What every figure has to say about itself."""

    shows: str
    """What is drawn, in one sentence."""
    read: str
    """How to read it."""
    n: str
    """How much was measured."""
    control: str
    """What it is compared with."""
    seed: str
    """Seeds of what was drawn at random."""
    unit: str
    """Unit of the values."""


@dataclass(frozen=True)
class Plot:
    """One drawing of a figure."""

    figure: Figure
    """The plotly figure."""
    label: str
    """What it shows, for those who do not see it, and its heading where a figure has several."""
    records: Sequence[Mapping[str, object]]
    """Its numbers, a row per mark, in the units of results.json; offered as CSV and JSON."""


@dataclass(frozen=True)
class Section:
    """A part of the page with a place in the table of contents."""

    key: str
    """Its anchor within the run."""
    title: str
    """Its heading."""
    body: Markup
    """Its content."""


def escape(text: object) -> Markup:
    """Text as HTML; markup passes, and characters that HTML forbids become U+FFFD."""
    if isinstance(text, Markup):
        return text
    return Markup(html.escape(CONTROL.sub("\ufffd", str(text)), quote=True))


def element(name: str, *content: object, **attributes: object) -> Markup:
    """An element; `class_` is class, a dash is written as an underscore, None leaves an attribute out."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{name}{written}>{''.join(map(escape, content))}</{name}>")


def join(parts: Iterable[object], between: str = "\n") -> Markup:
    """Pieces one after the other."""
    return Markup(escape(between).join(map(escape, parts)))


def language_cell(tag: str) -> Markup:
    """A language's name with its tag in small letters."""
    return Markup(f"{escape(language_name(tag))} <small>{escape(tag)}</small>")


def table(head: Sequence[object], rows: Iterable[Sequence[object]], *, kind: str = "") -> Markup:
    """A table whose first column names the rows; it scrolls sideways where it does not fit."""
    top = element("tr", *(element("th", cell, scope="col") for cell in head))
    lines = [
        element(
            "tr",
            element("th", first, scope="row"),
            # On a narrow screen rows of evidence are lists: each cell says what it is.
            *(
                element("td", cell, data_label=name if kind == "evidence" else None)
                for name, cell in zip(head[1:], cells, strict=True)
            ),
        )
        for first, *cells in rows
    ]
    whole = element("table", element("thead", top), element("tbody", *lines))
    # A table that scrolls can be reached by the keyboard.
    reach = {"tabindex": "0", "role": "region", "aria_label": "Table"} if kind in ("evidence", "matrix") else {}
    return element("div", whole, class_=f"table {kind}".strip(), **reach)


def details(title: str, *content: object) -> Markup:
    """Content that is folded away until asked for."""
    return element("details", element("summary", title), *content)


def definition_list(items: Mapping[str, object], *, kind: str | None = None) -> Markup:
    """Names with their values; objects in objects become lists in lists."""
    parts = []
    for key, value in items.items():
        if isinstance(value, Mapping) and len(value) > MANY and not any(isinstance(x, Mapping) for x in value.values()):
            description = escape(", ".join(f"{name} {_counted(inner)}" for name, inner in value.items()))
        elif isinstance(value, Mapping):
            description = definition_list({str(name): inner for name, inner in value.items()})
        elif isinstance(value, list | tuple):
            description = _listed(value)
        elif isinstance(value, Markup):
            description = value
        else:
            description = escape(_say(value))
        parts += [element("dt", key.replace("_", " ")), element("dd", description)]
    return element("dl", *parts, class_=kind)


def _counted(value: object) -> str:
    return f"({plain(len(value), 0)} in results.json)" if isinstance(value, list | tuple) else _say(value)


def _listed(values: Sequence[object]) -> Markup:
    """All of a short list; of a long one, such as hashes of documents, the number and the first."""
    if len(values) <= LISTED:
        return escape(", ".join(map(str, values)) or "–")
    return escape(f"{plain(len(values), 0)}, listed in results.json; the first: {values[0]}")


def _say(value: object) -> str:
    if value is None or isinstance(value, bool):
        return {None: "–", True: "yes", False: "no"}[value]
    if isinstance(value, float):
        return f"{value:.6g}"
    return plain(value, 0) if isinstance(value, int) else str(value) or "–"


def missing(what: str) -> Markup:
    """The line that stands where a figure would be."""
    return element("p", element("strong", what), f": {NOT_MEASURED}.", class_="missing")


def figure_block(name: str, plots: Sequence[Plot], caption: Caption, *numbers: object) -> Markup:
    """One or more plots with their caption and, folded away, the numbers behind them."""
    several = len(plots) > 1
    plot_blocks = [
        _plot(f"{name}-{at}", plot, caption.shows, heading=several)
        for at, plot in zip(itertools.count(1), plots, strict=False)
    ]
    facts = {key: together(getattr(caption, key)) for key in ("n", "control", "seed", "unit")}
    said = element("p", element("strong", together(caption.shows)), " ", together(caption.read))
    folded = [details("The numbers of this figure", *numbers)] if numbers else []
    return element(
        "figure",
        element("div", *plot_blocks, class_="plots pair" if several else "plots"),
        element("figcaption", said, definition_list(facts, kind="facts")),
        *folded,
    )


def _plot(name: str, plot: Plot, shows: str, *, heading: bool) -> Markup:
    drawing = Markup(figure_svg(plot.figure, name=name, title=plot.label, description=shows))
    title = [element("h4", plot.label)] if heading else []
    return element("div", *title, drawing, data_links(name, plot.records), class_="panel")


def data_links(name: str, records: Sequence[Mapping[str, object]]) -> Markup:
    """The numbers of a figure as two files that are inside the page; NaN is null, and empty in the CSV.

    The JSON has the form that pandas calls "split": names of the columns, and a list per row. A column that a record
    lacks is null there.
    """
    rows = [{key: None if value != value else value for key, value in record.items()} for record in records]  # noqa: PLR0124
    lines = io.StringIO()
    columns = list(dict.fromkeys(key for row in rows for key in row))
    writer = csv.DictWriter(lines, fieldnames=columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    table_of_rows = {"columns": columns, "data": [[row.get(key) for key in columns] for row in rows]}
    contents = {"csv": lines.getvalue(), "json": json.dumps(table_of_rows, ensure_ascii=False, separators=(",", ":"))}
    links = [
        element(
            "a",
            kind.upper(),
            download=f"{name}.{kind}",
            aria_label=f"Numbers of this figure as {kind.upper()}",
            href=f"data:text/{kind};charset=utf-8,{quote(text, safe=UNQUOTED)}",
        )
        for kind, text in contents.items()
    ]
    return element("p", "Numbers: ", join(links, ", "), class_="data")


def matrix_records(
    values: Float[np.ndarray, "row column"], rows: Sequence[object], columns: Sequence[object], names: Sequence[str]
) -> list[dict[str, object]]:
    """A row per cell of a table; names: of the two sides and of the value."""
    return [
        dict(zip(names, (row, column, value), strict=True))
        for row, line in zip(rows, values.tolist(), strict=True)
        for column, value in zip(columns, line, strict=True)
    ]
