"""The benchmark of saving runs on something small, and sees what is written."""

import importlib.util
import json
import sys
from pathlib import Path

from babelscope.runs import Run

FILE = Path(__file__).parents[2] / "experiments" / "benchmark_saving.py"


def test_both_kinds_of_work_are_timed_and_their_writes_are_seen(tmp_path):
    spec = importlib.util.spec_from_file_location("benchmark_saving", FILE)
    module = sys.modules["benchmark_saving"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.run(module.Config(tokens=300, steps=1, rounds=1, out=str(tmp_path)), Run(tmp_path))
    rows = [json.loads(line) for line in (tmp_path / "saving.jsonl").read_text().splitlines()]
    timed = {row["work"]: row for row in rows if "share" in row}
    assert {*timed} == {"observe", "training"}
    for row in timed.values():
        assert row["writes"] >= 1 and 0 < row["saving_seconds"] < row["seconds"]
        assert row["share"] == round(row["share"], 5) > 0
    assert {row["work"] for row in rows if "largest" in row} == {*timed}
