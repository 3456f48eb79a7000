"""The benchmark of deltas runs, counts what is written, and leaves the model as it was."""

import importlib.util
import sys
from pathlib import Path

import torch

from babelscope.runs import Run

FILE = Path(__file__).parents[2] / "experiments" / "benchmark_delta.py"


def test_rows_of_a_short_run(tmp_path):
    spec = importlib.util.spec_from_file_location("benchmark_delta", FILE)
    module = sys.modules["benchmark_delta"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    run = Run(tmp_path)
    module.run(module.Config(rounds=2, threads=torch.get_num_threads()), run)
    rows = [row for row in run.results() if row["variant"] == "alone"]
    assert [(row["dtype"], row["percent_of_neurons"]) for row in rows] == [
        (dtype, percent) for dtype in ("float32", "bfloat16") for percent in (1, 5, 10)
    ]
    for row in rows:
        # Once in and once out.
        assert row["bytes_written"] == 2 * row["values"] * {"float32": 4, "bfloat16": 2}[row["dtype"]]
        assert 0 < row["low"] <= row["ms"] <= row["high"]
