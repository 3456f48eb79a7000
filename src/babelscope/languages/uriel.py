"""What the data package `urielplus` says of languages: Glottolog's family tree and coordinates, and URIEL's features.

Only its data files are read, as CSV and npz; none of its code is run. `pip install babelscope[uriel]`.
Sources: Hammarström et al., Glottolog, CC BY 4.0; Littell et al. 2017, URIEL, ACL E17-2002; URIEL+, arXiv:2409.18472,
CC BY-SA 4.0.
"""

import csv
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from babelscope.axes import Float64
from babelscope.errors import PrerequisiteError
from babelscope.languages import Language

FeatureKind = Literal["syntax", "phonology", "inventory"]
LETTER: dict[FeatureKind, str] = {"syntax": "S", "phonology": "P", "inventory": "INV"}
"""How URIEL's names of features of a kind begin."""
INDIVIDUAL = {
    "ara": "arb", "aym": "ayr", "aze": "azj", "est": "ekk", "fas": "pes", "grn": "gug", "kur": "kmr", "lav": "lvs",
    "mlg": "plt", "mon": "khk", "msa": "zsm", "nep": "npi", "nor": "nob", "ori": "ory", "orm": "gaz", "pus": "pbt",
    "que": "quz", "sqi": "als", "srd": "sro", "swa": "swh", "uzb": "uzn", "yid": "ydd", "zho": "cmn",
}  # fmt: skip
"""Macro languages of ISO 639-3, and the member that most text under their tag is in."""


class Languoid(NamedTuple):
    """One language of Glottolog."""

    name: str
    latitude: float
    """Degrees; NaN where Glottolog has no place."""
    longitude: float
    lineage: tuple[str, ...]
    """Groups from the family down; empty for an isolate."""


def uriel_there() -> bool:
    """Whether the data package is installed."""
    return find_spec("urielplus") is not None


def languoid_of(language: Language) -> Languoid | None:
    """Glottolog's entry of a language, by its ISO 639-3 code; None where it has none.

    Of a macro language the member in `INDIVIDUAL`. Raises PrerequisiteError where the package is not installed.
    """
    codes = _glottocodes()
    code = language.iso639_3
    glottocode = codes.get(INDIVIDUAL.get(code, code)) or codes.get(code)
    return _languoids().get(glottocode) if glottocode else None


def uriel_features(language: Language, kind: FeatureKind) -> Float64[np.ndarray, " feature"] | None:
    """Shares of URIEL's sources that say yes to each feature of a kind; NaN where none says; None where all are NaN.

    Raises PrerequisiteError where the package is not installed.
    """
    names, codes, data = _features()
    code = language.iso639_3
    rows = [data[codes[c]] for c in (code, INDIVIDUAL.get(code, code)) if c in codes]
    of_kind = [at for at, name in enumerate(names) if name.split("_")[0] == LETTER[kind]]
    for row in rows:
        answers = np.where(row[of_kind] >= 0, row[of_kind].astype(np.float64), np.nan)
        counts = np.isfinite(answers).sum(axis=1)
        if counts.any():
            return np.where(counts > 0, np.nansum(answers, axis=1) / np.maximum(counts, 1), np.nan)
    return None


def _folder() -> Path:
    spec = find_spec("urielplus")
    if spec is None or not spec.submodule_search_locations:
        raise PrerequisiteError(
            "the data of URIEL+ is not installed; expected the package urielplus; pip install 'babelscope[uriel]'"
        )
    return Path(spec.submodule_search_locations[0]) / "database"


def _file(name: str) -> Path:
    path = _folder() / name
    if not path.is_file():
        raise PrerequisiteError(
            f"urielplus has no {name}; expected the files of its release 1.3; pip install 'babelscope[uriel]'"
        )
    return path


@cache
def _glottocodes() -> dict[str, str]:
    with _file("urielplus_csvs/uriel_glottocode_map.csv").open(encoding="utf-8", newline="") as lines:
        return {row["iso_code"]: row["glottocode"] for row in csv.DictReader(lines)}


@cache
def _languoids() -> dict[str, Languoid]:
    with _file("urielplus_csvs/lang_fam_geo.csv").open(encoding="utf-8", newline="") as lines:
        return {
            row["language_id"]: Languoid(
                row["language_name"],
                float(row["latitude"] or "nan"),
                float(row["longitude"] or "nan"),
                tuple(group for group in row["lineage"].split(", ") if group),
            )
            for row in csv.DictReader(lines)
        }


@cache
def _features() -> tuple[list[str], dict[str, int], np.ndarray]:
    with np.load(_file("original_uriel/features.npz"), allow_pickle=False) as stored:
        codes = {str(code): at for at, code in enumerate(stored["langs"])}
        return [str(name) for name in stored["feats"]], codes, stored["data"]
