"""Rows of a run on a GPU: collected once, the later folder's parts in the place of the earlier one's."""

import json
import sys
from pathlib import Path

import pytest
from babelscope_kernels.results import Row, append

FOLDER = Path(__file__).parents[2] / "experiments"
ROW = Row(
    "swiglu", "forward", "ours", 0.5, 0.4, 0.6, "ms", "8x8", "bfloat16", 1.0, 2.0, 0.9, 1.0, 4.0, 7.0,
    "a card", "2", "3", "abc1234", "today",
)  # fmt: skip


@pytest.fixture
def collect(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    sys.modules.pop("collect_gpu_rows", None)
    import collect_gpu_rows

    return collect_gpu_rows


def folder_of(path, commit, ratio, kernel_rows=()):
    path.mkdir()
    (path / "passes.done").write_text(f"{commit} cuda\n")
    (path / "benchmark_gpu_passes.jsonl").write_text(json.dumps({"what": "observe", "ratio": ratio}) + "\n")
    (path / "benchmark_adapt.jsonl").write_text(json.dumps({"variant": "half a step"}) + "\n")
    (path / "check.done").write_text(f"{commit} cuda\n")
    (path / "check-swiglu.log").write_text("a warning\nswiglu: 130 outcomes are good\n")
    (path / "kernels").mkdir()
    append(path / "kernels", list(kernel_rows))
    return path


def test_the_rows_of_two_runs(collect, tmp_path):
    results, out = tmp_path / "results", tmp_path / "gpu.jsonl"
    results.mkdir()
    first = folder_of(tmp_path / "one", "abc1234", 1.2, [ROW])
    second = folder_of(tmp_path / "two", "def5678", 1.04)
    config = collect.Config((first, second), out, results)
    collect.run(config)
    collect.run(config)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    # The step did not end: it has no mark that it was done.
    assert rows == [
        {"part": "passes", "commit": "def5678", "what": "observe", "ratio": 1.04},
        {"part": "check", "commit": "def5678", "kernel": "swiglu", "good": 130},
    ]
    assert (results / "swiglu.csv").read_text() == (first / "kernels" / "swiglu.csv").read_text()
