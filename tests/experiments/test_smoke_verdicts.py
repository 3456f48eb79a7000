"""The calibration of verdicts runs on little text, goes on where it stopped, and simulated answers keep the level."""

import importlib.util
import sys
from pathlib import Path

import torch

from babelscope.runs import Run

FILE = Path(__file__).parents[2] / "experiments" / "calibrate_verdicts.py"


def test_verdicts_are_counted_under_labels_that_mean_nothing_and_under_languages(tmp_path):
    spec = importlib.util.spec_from_file_location(FILE.stem, FILE)
    module = importlib.util.module_from_spec(spec)
    sys.modules[FILE.stem] = module
    spec.loader.exec_module(module)
    small = {"populations": 1, "tokens": 3000, "test_tokens": 40, "draws": 2, "resamples": 20, "simulations": 40}
    config = module.Config(**small, threads=torch.get_num_threads(), out=str(tmp_path / "rows.jsonl"))
    run = Run(tmp_path)
    module.run(config, run)
    rows = run.results()
    dealt = {"no language", "planted pair", "planted", "languages"}
    assert {row["labels"] for row in rows} == {*dealt, "no effect", "effect", "fluency"}
    stable = {row["labels"]: row for row in rows if row["verdict"].startswith("The set of a language")}
    assert stable["no language"]["tested"] == stable["languages"]["tested"] == 6
    assert stable["no language"]["holds"] < stable["languages"]["holds"]
    pairs = {row["labels"]: row["tested"] for row in rows if row["verdict"] == module.SHARED}
    assert pairs == {"no language": 15, "planted": 15, "languages": 15, "planted pair": 14}
    fluent = {row["verdict"]: row["share"] for row in rows if row["labels"] == "fluency"}
    assert fluent["answers count as fluent, true perplexity ratio 2"] == 0
    assert all(share > 0.8 for verdict, share in fluent.items() if verdict.startswith("the interval holds"))
    steering = [row for row in rows if row["labels"] in ("no effect", "effect")]
    assert [row["share"] < 0.05 for row in steering] == [True] * 5 + [False]
    (tmp_path / "no-language-0.json").write_text('[{"verdict": "read from the file", "tested": 1, "holds": 1}]')
    module.run(config, run)
    assert "read from the file" in {row["verdict"] for row in run.results()}
