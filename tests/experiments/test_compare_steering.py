"""The comparison of steering methods runs on a few prompts, and draws its table and figure from the rows alone."""

import importlib.util
import json
import sys
from pathlib import Path

import torch

from babelscope.runs import Run

FILE = Path(__file__).parents[2] / "experiments" / "compare_steering_methods.py"


def test_a_small_comparison_writes_rows_table_and_figure(tmp_path):
    spec = importlib.util.spec_from_file_location(FILE.stem, FILE)
    module = importlib.util.module_from_spec(spec)
    sys.modules[FILE.stem] = module
    spec.loader.exec_module(module)
    threads, run = torch.get_num_threads(), Run(tmp_path)
    names = ("mean direction", "instruction")
    config = module.Config(
        targets=("en", "fi"), seeds=(0,), dev_prompts=1, test_prompts=1, tokens=200, new_tokens=4,
        methods=names, threads=threads,
    )  # fmt: skip
    module.run(config, run)
    rows = run.results()
    assert {row["method"] for row in rows} == {"native", *names}
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert set(summary["methods"]) == {"native", *names} and summary["best_on_dev"] in names
    assert "| mean direction |" in (tmp_path / "table.md").read_text()
    page = (tmp_path / "figure.html").read_bytes()
    module.write_summary(run)
    assert (tmp_path / "figure.html").stat().st_size == len(page) and b"way of steering" in page
