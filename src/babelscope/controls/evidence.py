"""The tidy table of evidence: one row a claim, a language and a control."""

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from babelscope.files.strict_json import nan_as_null
from babelscope.files.writing import write_text

LABELS_CAVEAT = (
    "null: the label does not matter at all; nearly every unit rejects it; guards against dead and rare units and "
    "small text, is no evidence of specificity"
)
SHARDS_CAVEAT = "treats document shards as independent"
SPLITS_CAVEAT = "range over random half-splits of the shards, no confidence interval"
SCRIPT_CAVEAT = (
    "romanised text is out of distribution; Arabic loses its vowels; Japanese is left out (kanji would be read as "
    "Mandarin); languages in Latin script: not applicable"
)


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """One measured thing with its control; NaN means not measured and is written as null."""

    claim: str
    """What is claimed, such as "ablating the set harms its own language"."""
    language: str
    """Tag, or "" for a claim over all languages."""
    control: str
    """What it is compared with, such as "layer_matched"."""
    n: int
    """How many things the estimate rests on: documents, prompts, units."""
    estimate: float | int
    """The effect, in the unit that `claim` or `note` names."""
    low: float = math.nan
    """Lower end of the 95 % interval."""
    high: float = math.nan
    """Upper end."""
    p: float = math.nan
    """p-value against the control."""
    draws: int = 0
    """Random draws or resamples behind p and the interval."""
    seed: int | None = None
    """Seed of the draws; None where nothing was drawn."""
    note: str = ""
    """Caveat, unit, or correction used."""


def write_evidence(rows: Iterable[Evidence], path: str | Path) -> Path:
    """Write rows as JSON lines, one object a row, by `nan_as_null`; raises PrerequisiteError where that fails."""
    lines = [json.dumps(nan_as_null(asdict(row)), ensure_ascii=False, allow_nan=False) for row in rows]
    return write_text(path, "".join(f"{line}\n" for line in lines))
