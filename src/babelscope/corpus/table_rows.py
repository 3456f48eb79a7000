"""Rows of a file of tables: a jsonl object a line, or CSV and TSV below a head of column names; plain or compressed."""

import csv
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from babelscope.corpus.documents import clean_text
from babelscope.corpus.file_lines import COMPRESSED, raw_lines, text_lines
from babelscope.errors import CorpusError
from babelscope.files.strict_json import parse_json

TABLES = ("jsonl", "csv", "tsv")
"""Endings of files of rows, before the ending of a packed one."""
UNREAD_KINDS = {
    "parquet": "parquet",
    "arrow": "a data set of save_to_disk",
    "xlsx": "Excel",
    "json": "JSON in one piece",
}
"""Endings of tables that are not read, and what messages call them."""


def file_kind(file: Path) -> str:
    """The ending of a file in small letters, without that of a packed one."""
    parts = file.name.lower().split(".")
    return parts[-2] if f".{parts[-1]}" in COMPRESSED and len(parts) > 2 else parts[-1]


def way_of_unread(table: Path) -> str:
    """What a person can do with a table of a kind that is not read."""
    kind = file_kind(table)
    way = f'{UNREAD_KINDS[kind]} is not read: write the rows of {table.name} as <tag>.jsonl, {{"text": "…"}} a line'
    if kind == "arrow":
        way += f"; datasets.load_from_disk({str(table.parent)!r}).to_json('<tag>.jsonl') does so for a column text"
    return way


def file_rows(file: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The rows of a file, each with its place for messages; raises CorpusError for one that is no row."""
    kind = file_kind(file)
    if kind in ("csv", "tsv"):
        yield from _cells_by_name(file, kind)
        return
    for number, line in text_lines(file):
        if line.strip():
            where = f"{file}, line {number}"
            row = parse_json(line, where, error=CorpusError, advice="expected an object a line; correct it")
            if not isinstance(row, dict):
                raise CorpusError(f"{where}: a {type(row).__name__} came; expected an object a line; correct it")
            yield where, row


def numbered_rows(file: Path) -> list[tuple[int, list[str]]]:
    """Number and cells of each line of a table that is not empty; tabs between cells, no quotes."""
    rows = [
        (number, [clean_text(cell).strip() for cell in line.split("\t")])
        for number, line in text_lines(file)
        if line.strip()
    ]
    if len(rows) < 2:
        raise CorpusError(f"{file}: {len(rows)} lines; expected a line of names and lines below it; add some")
    return rows


def _cells_by_name(file: Path, kind: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Rows below a head; a quoted cell of CSV may hold line ends, and in TSV a quote is a letter like others."""
    text = "".join(f"{line}\n" for _, line in raw_lines(file))
    lines = io.StringIO(text, newline="")
    if kind == "tsv":
        reader = csv.reader(lines, strict=True, delimiter="\t", quoting=csv.QUOTE_NONE)
    else:
        reader = csv.reader(lines, strict=True)
    try:
        head = next(reader, [])
        if kind == "csv" and len(head) == 1 and (sign := next((sign for sign in ";\t|" if sign in head[0]), None)):
            raise CorpusError(f"{file}: has {sign!r} between its columns; expected commas; save it with them")
        if len(set(head)) < len(head):
            raise CorpusError(f"{file}: two columns have one name ({', '.join(head)}); expected different ones; rename")
        for cells in reader:
            where = f"{file}, line {reader.line_num}"
            if cells and len(cells) != len(head):
                raise CorpusError(f"{where}: {len(cells)} cells came; expected {len(head)}, as in the head; correct it")
            if cells:
                yield where, dict(zip(head, cells, strict=True))
    except csv.Error as err:
        raise CorpusError(
            f"{file}, line {reader.line_num}: is no {kind.upper()} ({err}); expected cells of at most "
            f"{csv.field_size_limit()} characters with all quotes closed; correct it, or write the rows as jsonl"
        ) from err
