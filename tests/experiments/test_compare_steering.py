"""The comparison of steering methods runs on a few prompts, and draws its table and figure from the rows alone."""

import importlib.util
import json
import sys
from pathlib import Path

import torch
from conftest import tiny_model, tiny_tokenizer

from babelscope.runs import Run

FILE = Path(__file__).parents[2] / "experiments" / "compare_steering_methods.py"


def comparison(monkeypatch):
    monkeypatch.syspath_prepend(str(FILE.parent))
    spec = importlib.util.spec_from_file_location(FILE.stem, FILE)
    module = importlib.util.module_from_spec(spec)
    sys.modules[FILE.stem] = module
    spec.loader.exec_module(module)
    return module


def test_a_small_comparison_writes_rows_table_and_figure(tmp_path, monkeypatch):
    module = comparison(monkeypatch)
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


def test_another_model_is_tried_at_shares_of_its_depth_without_the_bundled_autoencoders(tmp_path, monkeypatch):
    module = comparison(monkeypatch)
    model, tokenizer = tiny_model("gemma3_text"), tiny_tokenizer()
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    config = module.Config(
        model=str(tmp_path / "model"), targets=("en", "fi", "ru"), documents=4, seeds=(0,), dev_prompts=1,
        test_prompts=1, tokens=60, new_tokens=2, threads=torch.get_num_threads(), summary=str(tmp_path / "sum.json"),
    )  # fmt: skip
    (tmp_path / "run").mkdir()
    run = Run(tmp_path / "run")
    module.run(config, run)
    rows = run.results()
    names = {row["method"] for row in rows}
    assert len(names) == 21 and "low-rank control" in names and not any("features" in name for name in names)
    assert {row["layer"] for row in rows if row["method"] == "mean direction"} == {1}  # of three layers
    assert set(json.loads((tmp_path / "sum.json").read_text())["methods"]) == names
