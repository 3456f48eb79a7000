"""Sections for any command that writes rows of evidence: its pictures, and its rows as a table."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from babelscope.errors import ArtifactError, MeasurementError
from babelscope.figures import Figure, figure_svg
from babelscope.figures.pages import AGAIN, read_figures
from babelscope.files.strict_json import parse_json
from babelscope.report.folder_records import EvidenceRow
from babelscope.report.markup import Markup, Section, data_links, element, join, table
from babelscope.report.results.record_json import read_record, to_json
from babelscope.report.wording import p_value, plain

MOST_ROWS, MOST_OFFERED = 80, 400
"""Rows of evidence in a table, and in the files that a page offers: a probe can write a hundred thousand."""
MOST_PICTURES = 12
"""Pictures of one folder in a page; the others stay in the folder."""
NUMBERS = ("estimate", "low", "high", "null", "p", "n")
"""What was measured: in the middle of the table, whether or not it tells rows apart."""
LAST = ("control", "draws", "seed", "note")
"""How it was measured: the last columns."""


def read_evidence(file: Path) -> list[EvidenceRow]:
    """The rows of an evidence file; raises ArtifactError, in one line, for one that is missing or damaged."""
    if not file.is_file():
        raise ArtifactError(f"{file}: is missing; expected rows of evidence; {AGAIN}")
    rows = []
    for at, line in enumerate(file.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        place = f"{file}:{at}"
        row = parse_json(line, place, advice=AGAIN)
        rows.append(read_record(EvidenceRow, row, (), place=place, expected="a row of evidence", advice=AGAIN))
    return rows


def evidence_section(rows: Sequence[EvidenceRow], key: str, folder: Path | None = None) -> Section:
    """Pictures of a folder, then its rows as a table.

    The table has a column for all that tells two rows apart; what every row shares is said once above it. Of more than
    `MOST_ROWS` rows each claim shows about as many: those of smallest p, or without p furthest from their control.
    """
    records = list(map(to_json, rows))
    body: list[Markup] = pictures(folder, key) if folder else []
    shared, apart = _shared_and_apart(records)
    if shared:
        said = "; ".join(f"{name.replace('_', ' ')}: {_cell(value)}" for name, value in shared.items())
        body.append(element("p", f"In every row: {said}.", class_="note"))
    first, last = [key for key in apart if key not in LAST], [key for key in LAST if key in apart]
    null = any("null" in record for record in records)
    measured = ["Estimate", "Interval", *(["Under the control"] if null else []), "p", "n"]
    head = ["Claim", *map(_heading, first), *measured, *map(_heading, last)]
    lines = []
    chosen = _most_telling(rows)
    for row, record in ((rows[at], records[at]) for at in chosen):
        ends = "–" if not math.isfinite(row.low) else f"[{_cell(row.low)}, {_cell(row.high)}]"
        numbers = [_cell(row.estimate), ends, *([_cell(record.get("null"))] if null else []), p_value(row.p)]
        before, after = ([_cell(record.get(key)) for key in keys] for keys in (first, last))
        lines.append([row.claim, *before, *numbers, plain(row.n, 0), *after])
    body.append(table(head, lines, kind="evidence"))
    if len(chosen) < len(rows):
        seen, claims = (len({row.claim for row in part}) for part in ([rows[at] for at in chosen], rows))
        text = (
            f"{len(chosen)} of {len(rows):,} rows, of {seen} of {claims} claims, of each those of smallest p: of so "
            "many some are small by chance. All of them are in the command's folder, in its .jsonl file."
        )
        body.append(element("p", text, class_="note"))
    if len(rows) <= MOST_OFFERED:
        body.append(data_links(f"evidence-{key}", records))
    return Section(f"evidence-{key}", f"Evidence: {key}", join(body))


def _shared_and_apart(records: Sequence[Mapping[str, Any]]) -> tuple[dict[str, Any], list[str]]:
    """Keys that have one value in all of several rows, with it; and keys whose values differ. Numbers are left out."""
    keys = dict.fromkeys(key for record in records for key in record if key != "claim" and key not in NUMBERS)
    shared, apart = {}, []
    for key in keys:
        values = [record.get(key) for record in records]
        if any(value != values[0] for value in values) or len(values) == 1:
            apart.append(key)
        elif values[0] not in (None, ""):
            shared[key] = values[0]
    return shared, apart


def _most_telling(rows: Sequence[EvidenceRow]) -> list[int]:
    """Places of the rows of a table, claim by claim."""
    if len(rows) <= MOST_ROWS:
        return [*range(len(rows))]
    by_claim: dict[str, list[int]] = {}
    for at, row in enumerate(rows):
        by_claim.setdefault(row.claim, []).append(at)

    def order(at: int) -> tuple[float, float]:
        row, null = rows[at], rows[at].further.get("null")
        p = row.p if math.isfinite(row.p) else 2.0
        away = abs(row.estimate - null) if isinstance(null, int | float) else abs(row.estimate)
        return p, -away if math.isfinite(away) else 0.0

    most = max(1, MOST_ROWS // len(by_claim))
    return [at for places in by_claim.values() for at in sorted(places, key=order)[:most]][:MOST_ROWS]


def _heading(key: str) -> str:
    return key.replace("_", " ").capitalize()


def _cell(value: object) -> str:
    """Three digits that count, so that a probability of a hundred-thousandth is not nought."""
    if value is None or value == "":
        return "–"
    if not isinstance(value, int | float) or isinstance(value, bool):
        return str(value)
    if isinstance(value, float) and 0 < abs(value) < 1000:
        return f"{value:.3g}".replace("-", "−")
    return plain(value, 0)


def pictures(folder: Path, key: str) -> list[Markup]:
    """The figures of a command's folder, drawn again from their values, with their captions and numbers.

    Raises ArtifactError, in one line, for values that cannot be drawn.
    """
    figures = [(file, *drawn) for file in sorted(folder.glob("*.html")) for drawn in read_figures(file)]
    blocks = []
    for number, (file, figure, caption) in enumerate(figures[:MOST_PICTURES], start=1):
        name = f"{key}-{number}"
        try:
            drawing = Markup(figure_svg(figure, name=name, title=caption.title, description=caption.shows))
        except (ArithmeticError, AttributeError, LookupError, MeasurementError, TypeError, ValueError) as err:
            # plotly takes more forms of a figure than are drawn here, and some are no drawing at all.
            fault = " ".join(str(err).split())[:120]
            raise ArtifactError(f"{file}: cannot be drawn ({fault}); {AGAIN}") from err
        said = element("p", element("strong", f"{caption.title}."), " ", caption.shows)
        panel = element("div", drawing, data_links(name, figure_records(figure)), class_="panel")
        blocks.append(element("figure", element("div", panel, class_="plots"), element("figcaption", said)))
    if len(figures) > MOST_PICTURES:
        text = f"{len(figures) - MOST_PICTURES} more pictures are in the folder."
        blocks.append(element("p", text, class_="note"))
    return blocks


def figure_records(figure: Figure) -> list[dict[str, object]]:
    """The numbers of a figure, a row per mark: its series, where it stands, and for a map its value."""
    rows: list[dict[str, object]] = []
    for trace in figure.data:
        series, y = trace.name or "", _listed(trace.y)
        # Without places of their own, marks stand at 0, 1, 2 …
        x = [*range(len(y))] if trace.x is None and trace.type != "heatmap" else _listed(trace.x)
        if trace.type == "heatmap":
            rows += [
                {"series": series, "x": column, "y": line, "value": value}
                for line, values in zip(y, _listed(trace.z), strict=False)
                for column, value in zip(x, _listed(values), strict=False)
            ]
        else:
            rows += [{"series": series, "x": a, "y": b, "value": None} for a, b in zip(x, y, strict=False)]
    return rows


def _listed(values: Any) -> list[Any]:
    return [] if values is None else np.array(values, dtype=object).tolist()
