"""Entries of a JSON file taken as what they must be: each is of its kind, or refused in one line."""

import json
import math
from collections.abc import Sequence
from typing import Any

from babelscope.errors import ArtifactError


def as_text(value: Any, name: str) -> str:
    """A text from JSON."""
    if not isinstance(value, str):
        raise ArtifactError(f"{name} is {_shown(value)}, and no text")
    return value


def as_whole(value: Any, name: str, least: int = 0) -> int:
    """A whole number from JSON that fits in 64 bits."""
    if type(value) is not int or not least <= value < 2**63:
        raise ArtifactError(f"{name} is {_shown(value)}, and no whole number of {least} or more")
    return value


def as_number(value: Any, name: str) -> float:
    """A finite number from JSON."""
    if type(value) not in (int, float) or not math.isfinite(value):
        raise ArtifactError(f"{name} is {_shown(value)}, and no finite number")
    return float(value)


def as_flag(value: Any, name: str) -> bool:
    """True or False from JSON."""
    if type(value) is not bool:
        raise ArtifactError(f"{name} is {_shown(value)}, and neither true nor false")
    return value


def as_list(value: Any, name: str) -> list[Any]:
    """A list from JSON."""
    if not isinstance(value, list):
        raise ArtifactError(f"{name} is {_shown(value)}, and no list")
    return value


def as_table(value: Any, name: str) -> dict[str, Any]:
    """An object from JSON."""
    if not isinstance(value, dict):
        raise ArtifactError(f"{name} is {_shown(value)}, and no object")
    return value


def entries_in(value: Any, name: str, count: int) -> list[Any]:
    """A list from JSON of so many entries."""
    if len(as_list(value, name)) != count:
        raise ArtifactError(f"{name} is {_shown(value)}, and no list of {count}")
    return value


def entries_of(value: Any, name: str, keys: Sequence[str]) -> list[Any]:
    """The values of an object from JSON that has these keys and no others."""
    if odd := sorted(set(as_table(value, name)) ^ {*keys}):
        raise ArtifactError(f"{name} {'has' if odd[0] in value else 'lacks'} {odd[0]!r}, and is of {', '.join(keys)}")
    return [value[key] for key in keys]


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:40]} and so on"
