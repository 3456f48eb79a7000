"""The study of a real model runs as a command of its own, and what it took stands beside what it said it would."""

import importlib.util
import json
import sys
from pathlib import Path

from babelscope.runs import Run

FILE = Path(__file__).parents[2] / "experiments" / "study_real_model.py"
AMOUNTS = {
    "tokens-per-language": 8000,
    "choose-tokens": 30,
    "ablate-tokens": 30,
    "part-tokens": 0,
    "draws": 2,
    "resamples": 4,
}


def test_the_study_is_run_once_and_read_after_that(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("study_real_model", FILE)
    assert spec is not None and spec.loader is not None
    module = sys.modules["study_real_model"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    flags = [word for name, amount in AMOUNTS.items() for word in (f"--{name}", str(amount))]
    rows, page = tmp_path / "rows.json", tmp_path / "page.html"
    config = module.Config(
        model="reference",
        corpus="reference",
        languages=("en", "fi"),
        train_lines=400,
        flags=(*flags, "--no-steering"),
        threads=1,
        study=str(tmp_path / "study"),
        rows=str(rows),
        page=str(page),
    )
    module.run(config, Run(tmp_path))
    results = json.loads(rows.read_text())
    assert set(results["expected_seconds"]) == {"observe", "identify", "control", "ablate"} < set(results["seconds"])
    assert sum(results["expected_seconds"].values()) > 0  # said in whole seconds, so that quick stages are 0
    assert results["budget"]["draws"] == 2 and results["number_format"] == []
    assert page.read_text().startswith("<!doctype html>")
    written = (tmp_path / "study" / "results.json").stat().st_mtime_ns
    module.run(config, Run(tmp_path))
    assert (tmp_path / "study" / "results.json").stat().st_mtime_ns == written
