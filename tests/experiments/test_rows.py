"""The page of rows: its marks follow from what was measured, and each row has its line."""

import json
import re
import sys
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "experiments"))

from measure_rows import Config, keep, run  # noqa: E402
from rows.catalogue import ROWS  # noqa: E402
from rows.result import Planted, RowResult, Witness  # noqa: E402
from tables.rows import rows_table  # noqa: E402

from babelscope.errors import ToolkitError  # noqa: E402

NEAR, FAR = (Witness(what="by hand", difference=d, bar=1e-6) for d in (1e-7, float("nan")))
FOUND, MISSED = (Planted(what="five neurons", recall=r, precision=1.0) for r in (1.0, 0.8))


@pytest.mark.parametrize(
    ("result", "mark"),
    [
        (RowResult(witnesses=[NEAR], headlines=(), planted=[FOUND]), "●"),
        (RowResult(witnesses=[], headlines=(), planted=[FOUND]), "◐"),
        (RowResult(witnesses=[NEAR, FAR], headlines=()), "◐"),
        (RowResult(witnesses=[NEAR], headlines=(), planted=[MISSED]), "◐"),
        (RowResult(witnesses=[NEAR], headlines=(), absent=["encoders"]), "◐"),
    ],
)
def test_a_mark_follows_from_what_was_measured(result, mark):
    assert result.mark == mark


def test_a_row_measured_again_replaces_its_line(tmp_path):
    path = tmp_path / "rows.jsonl"
    for row, mark in ((3, "◐"), (1, "●"), (3, "●")):
        keep(path, {"row": row, "mark": mark, "difference": float("nan")})
    lines = [json.loads(text) for text in path.read_text(encoding="utf-8").splitlines()]
    assert [(line["row"], line["mark"], line["difference"]) for line in lines] == [(1, "●", None), (3, "●", None)]


def test_every_row_has_a_line_that_begins_with_its_number_and_ends_with_its_mark():
    _, _, *lines = rows_table()
    assert [int(re.match(r"\| (\d+) \|", line)[1]) for line in lines] == list(ROWS)
    assert all(line.endswith(("| ● |", "| ◐ |", "| ○ |")) for line in lines)


def test_what_measures_a_row_is_there():
    for row in ROWS.values():
        if row.measure:
            module, function = row.measure.split(":")
            assert callable(getattr(import_module(f"rows.{module}"), function))


def test_a_row_without_a_measurement_is_refused(tmp_path):
    with pytest.raises(ToolkitError, match="nothing to measure"):
        run(Config(rows=(40,), out=str(tmp_path / "rows.jsonl")), None)
