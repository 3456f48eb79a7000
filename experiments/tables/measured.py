"""The files in docs/measured/, and how their figures are written."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from babelscope.report.results import Results
from babelscope.report.results.study_results import results_of_tree

T = TypeVar("T")
ROOT = Path(__file__).parents[2]


def read(name: str) -> Any:
    """A list of rows for .jsonl, else the object."""
    text = (ROOT / "docs" / "measured" / name).read_text()
    return [json.loads(line) for line in text.splitlines()] if name.endswith("l") else json.loads(text)


class RealStudy(NamedTuple):
    """A study of a real model, with what experiments/study_real_model.py adds to its results."""

    results: Results
    expected_seconds: Mapping[str, float]
    """Of each stage, as they were said before it began."""
    number_format: Sequence[str]
    """What was said of it, where anything was."""
    threads: int


def read_results(name: str) -> Results:
    """The results of a study, with the checks of every reader of them."""
    return results_of_tree(read(name), name)


def read_study(name: str) -> RealStudy:
    """The results of a study of a real model, and what it took beside what was said."""
    tree = read(name)
    added = (tree[key] for key in RealStudy._fields[1:])
    return RealStudy(results_of_tree(tree, name), *added)


def given(value: T | None) -> T:
    """A field that a study may leave out and these did not."""
    assert value is not None
    return value


def share(value: float | None, digits: int = 1) -> str:
    return "–" if value is None or math.isnan(value) else f"{100 * value:.{digits}f} %"


def spread(row: dict, name: str) -> str:
    return f"{row[name]:.3f} ({row[f'{name}_low']:.3f}–{row[f'{name}_high']:.3f})"


def faster(row: dict) -> str:
    return f"{row['times_faster']:.2f} ({row['low']:.2f}–{row['high']:.2f})"
