"""JSON that every reader takes for the same: what is read is refused otherwise, what is written holds no NaN."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from babelscope.errors import ArtifactError, ToolkitError

DEEPEST = 64
"""Levels of objects and lists inside each other."""
MOST_BYTES = 256 * 2**20
"""Of a whole file, unless the caller says less."""
MOST_DIGITS = 20
"""Of a whole number: enough for 64 bits."""


def parse_json(
    text: str | bytes, place: str, *, error: type[ToolkitError] = ArtifactError, advice: str = "make it again"
) -> Any:
    """The value of a JSON text.

    place: what the message begins with, such as a file's path, or path and line.
    Raises `error`, in one line that ends in `advice`, for what is no JSON or no UTF-8, a key that comes twice, NaN and
    Infinity, numbers outside float64 or 64 bits, halves of surrogate pairs, and more than 64 levels of nesting.
    """
    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8")
        value = json.loads(
            text,
            object_pairs_hook=_table,
            parse_constant=_refuse_constant,
            parse_float=_finite,
            parse_int=_whole,
        )
        _check(value)
    except UnicodeDecodeError as err:
        raise error(f"{place}: is no UTF-8 (byte {err.start}); expected JSON; {advice}") from err
    except RecursionError:
        raise error(f"{place}: nested too deep; expected at most {DEEPEST} levels; {advice}") from None
    except ValueError as err:
        raise error(f"{place}: is no JSON that can be read ({err}); expected one JSON value; {advice}") from err
    return value


def read_json(
    path: Path,
    *,
    most_bytes: int = MOST_BYTES,
    error: type[ToolkitError] = ArtifactError,
    advice: str = "make it again",
) -> Any:
    """The value of a JSON file; raises `error` for a file that cannot be read or is too large, and as `parse_json`."""
    try:
        if path.exists() and not path.is_file():  # a device has no end
            raise error(f"{path}: is no plain file; expected a JSON file; {advice}")
        with path.open("rb") as file:
            content = file.read(most_bytes + 1)
        if len(content) > most_bytes:
            raise error(f"{path}: more than {most_bytes} bytes; expected at most so many; {advice}")
    except OSError as err:
        raise error(f"{path}: cannot be read ({err.strerror}); expected a JSON file; {advice}") from err
    return parse_json(content, str(path), error=error, advice=advice)


def nan_as_null(value: Any) -> Any:
    """A value as JSON has it, at any depth: NaN and infinity are null, which is what JSON has for the undefined.

    Objects, lists, tuples and numbers, those of numpy and torch too; arrays and tensors become lists, keys texts.
    """
    if isinstance(value, Mapping):
        return {str(key): nan_as_null(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [nan_as_null(entry) for entry in value]
    if hasattr(value, "tolist"):  # numpy and torch, which are not loaded for it
        return nan_as_null(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {_short(twice)} comes twice in one object")
    return table


def _refuse_constant(word: str) -> Any:
    raise ValueError(f"{word} is no JSON number")


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"the number {_short(digits)} is too large")
    return value


def _whole(digits: str) -> int:
    if len(digits) > MOST_DIGITS:
        raise ValueError(f"a whole number of {len(digits)} digits")
    return int(digits)


def _check(value: Any) -> None:
    """Raise ValueError for nesting that is too deep, and for strings that no UTF-8 file can hold."""
    level, depth = [value], 0
    while level:
        below: list[Any] = []
        for entry in level:
            if isinstance(entry, dict):
                below += entry.values()
                below += entry
            elif isinstance(entry, list):
                below += entry
            elif isinstance(entry, str) and not entry.isascii():
                try:
                    entry.encode("utf-8")
                except UnicodeEncodeError:
                    raise ValueError(f"half a surrogate pair in {_short(entry)}") from None
        level, depth = below, depth + 1
        if depth > DEEPEST + 1:
            raise ValueError(f"nested deeper than {DEEPEST} levels")


def _short(text: str) -> str:
    return ascii(text if len(text) <= 40 else f"{text[:40]} and so on")
