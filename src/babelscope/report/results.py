"""Reading `results.json`: every fault is named in one line before anything is drawn."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from babelscope.axes import Float
from babelscope.errors import ArtifactError
from babelscope.figures import Number
from babelscope.files.strict_json import parse_json
from babelscope.report.schema import RESULTS

FILE = "results.json"
SCHEMA = "babelscope.results/1"
FAULTS_SHOWN = 6
"""Faults that one message lists; the rest are counted."""
HALF_PAIR = re.compile(
    r"(?P<pair>\\u[dD][89abAB]..\\u[dD][c-fC-F]..)|(?P<backslash>\\\\)|\\u[dD][89a-fA-F][0-9a-fA-F]{2}"
)
"""Half of a surrogate pair, as JSON may spell it; no file in UTF-8 can hold it."""


@dataclass(frozen=True)
class Results:
    """One run's results.json, checked; `null` becomes NaN where numbers are asked for."""

    folder: Path
    """The run folder."""
    tree: Mapping[str, Any]
    """The file as it was read."""
    languages: tuple[str, ...]
    """Tags, in the order of every language axis."""

    def find(self, path: str) -> Any:
        """Value at a dotted path such as `controls.script`, or None where a part of it is missing."""
        value: Any = self.tree
        for key in path.split("."):
            value = value.get(key) if isinstance(value, Mapping) else None
        return value

    @property
    def native_answers(self) -> str:
        """What the native ceiling is in this run, in words: continuations, or answers of a chat model."""
        if self.find("steering.chat") is None:
            return "the model's own continuations of native text"
        system = f", system prompt {self.find('steering.chat.system')!r}" if self.find("steering.chat.system") else ""
        return f"the model's own answers to messages in the target language, by its chat template{system}"

    def by_language(self, path: str) -> dict[str, Any]:
        """A {tag: value} object in the order of the languages, without null values and keys that are no language."""
        by_tag = self.find(path) or {}
        return {tag: by_tag[tag] for tag in self.languages if by_tag.get(tag) is not None}

    def vector(self, path: str) -> Float[np.ndarray, " language"]:
        """One number per language; NaN where there is none."""
        numbers = self.by_language(path)
        return np.array([numbers.get(tag, math.nan) for tag in self.languages], dtype=np.float64)

    def rows(self, path: str, width: int) -> Float[np.ndarray, "language column"]:
        """A row of numbers per language; NaN where there is none."""
        number_rows = self.by_language(path)
        return to_array([number_rows.get(tag, [None] * width) for tag in self.languages])

    def matrix(self, path: str) -> Float[np.ndarray, "row column"] | None:
        """A table of numbers, or None where it was not measured."""
        rows = self.find(path)
        return None if rows is None else to_array(rows)


def to_array(rows: Sequence[Sequence[Number | None]]) -> Float[np.ndarray, "row column"]:
    """Nested lists as float64; null becomes NaN."""
    return np.array([[math.nan if x is None else x for x in row] for row in rows], dtype=np.float64)


def read_results(folder: Path) -> Results:
    """Read and check a run folder's results.json; raises ArtifactError, in one line, for anything that does not fit."""
    file = folder / FILE
    if not file.is_file():
        raise ArtifactError(f"{folder}: has no {FILE}; expected the folder of a finished run; check the path")
    try:
        written = HALF_PAIR.sub(_whole, file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as err:
        raise ArtifactError(f"{file}: is no JSON that can be read ({err}); make the run again") from err
    tree = parse_json(written, str(file), advice="make the run again")
    schema = tree.get("schema") if isinstance(tree, dict) else None
    if schema != SCHEMA:
        raise ArtifactError(f"{file}: schema {schema!r}; expected {SCHEMA!r}; give the folder of a babelscope run")
    languages = tree.get("languages")
    tags = tuple(tag for tag in languages if isinstance(tag, str)) if isinstance(languages, list) else ()
    faults = list(RESULTS(tree, "", tags))
    if faults:
        more = f"; and {len(faults) - FAULTS_SHOWN} more" if len(faults) > FAULTS_SHOWN else ""
        faults_text = "; ".join(faults[:FAULTS_SHOWN])
        raise ArtifactError(
            f"{file}: {faults_text}{more}; expected {SCHEMA} (docs/results.schema.json); make the run again"
        )
    return Results(folder=folder, tree=tree, languages=tags)


def _whole(match: re.Match[str]) -> str:
    return match["pair"] or match["backslash"] or "\ufffd"
