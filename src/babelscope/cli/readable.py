"""Fields of a result as a person reads them: no braces, figures to four digits, rows as a table."""

from collections.abc import Mapping, Sequence
from typing import Any

from babelscope.errors import one_line

ENDS = ("estimate", "low", "high")
WIDEST = 40
"""Letters of a table's cell; rows with a longer one stand as lines of names and values."""


def number_of(count: int, thing: str) -> str:
    """A number of things: "1 prompt", "2,000 prompts"."""
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """A table for the terminal: the first column to the left, the others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in rows]


def result_lines(key: str, value: Any) -> list[str]:
    """A field of a result: one line, or a table of its rows."""
    rows = list(value.values()) if isinstance(value, Mapping) else value
    if isinstance(rows, list) and rows and all(isinstance(row, dict | list) for row in rows):
        names = [one_line(str(name)) for name in value] if isinstance(value, Mapping) else [""] * len(rows)
        return [f"{key}:", *(f"  {line}" for line in table_lines(names, rows))]
    return [f"{key}: {value_text(value)}"]


def table_lines(names: Sequence[str], rows: Sequence[Any]) -> list[str]:
    """Rows with the same fields as a table; others as a line each, behind its name."""
    has_names = any(names)
    if all(isinstance(row, dict) and row and list(row) == list(rows[0]) for row in rows) and not is_interval(rows[0]):
        cells = [[value_text(cell) for cell in row.values()] for row in rows]
        if all(len(cell) <= WIDEST for row in cells for cell in row):
            table = [[one_line(str(field)) for field in rows[0]], *cells]
            return aligned(
                [[name, *line] for name, line in zip(["", *names], table, strict=True)] if has_names else table
            )
    return [(f"{name}: " if has_names else "") + value_text(row) for name, row in zip(names, rows, strict=True)]


def is_interval(value: Any) -> bool:
    """Whether a value is an estimate with its ends."""
    return isinstance(value, Mapping) and all(name in value for name in ENDS)


def value_text(value: Any) -> str:
    """A value in words: an estimate with its ends and what else belongs to it, names with their values, a list."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        text = f"{value:,.0f}" if 10_000 <= abs(value) < 1e15 else f"{value:.4g}"
        return text.replace("-", "−", 1) if text.startswith("-") else text
    if is_interval(value):
        estimate, low, high = (value_text(value[name]) for name in ENDS)
        further = "".join(f"; {name} {value_text(cell)}" for name, cell in value.items() if name not in ENDS)
        return f"{estimate} ({low} to {high}{one_line(further)})"
    if isinstance(value, Mapping):
        return (
            ", ".join(f"{one_line(str(name)) or 'none'} {inner_text(cell)}" for name, cell in value.items()) or "none"
        )
    if isinstance(value, list | tuple):
        return ", ".join(map(inner_text, value)) or "none"
    return one_line(str(value))


def inner_text(value: Any) -> str:
    """A value within another: in brackets where it has several itself."""
    several = isinstance(value, Mapping | list | tuple) and not is_interval(value)
    return f"({value_text(value)})" if several else value_text(value)
