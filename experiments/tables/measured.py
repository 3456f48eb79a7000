"""The files in docs/measured/, and how their figures are written."""

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def read(name: str) -> Any:
    """A list of rows for .jsonl, else the object."""
    text = (ROOT / "docs" / "measured" / name).read_text()
    return [json.loads(line) for line in text.splitlines()] if name.endswith("l") else json.loads(text)


def share(value: float | None, digits: int = 1) -> str:
    return "–" if value is None else f"{100 * value:.{digits}f} %"


def spread(row: dict, name: str) -> str:
    return f"{row[name]:.3f} ({row[f'{name}_low']:.3f}–{row[f'{name}_high']:.3f})"


def faster(row: dict) -> str:
    return f"{row['times_faster']:.2f} ({row['low']:.2f}–{row['high']:.2f})"
