"""The experiments on units run on something tiny."""

import importlib.util
import sys
from pathlib import Path

from babelscope.runs import Run

FOLDER = Path(__file__).parents[2] / "experiments"


def load(name):
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def test_the_tokenizer_is_measured(tmp_path):
    module = load("measure_tokenizer_premium")
    settings = {"mono": "", "bytes_per_language": 3000, "merges": 60, "resamples": 2}
    module.run(module.Config(**settings, graded=1, graded_vocabulary=400, graded_bytes=5000), Run(tmp_path))
    rows = Run(tmp_path).results()
    premium = {row["language"]: row for row in rows if row.get("claim") == "tokenizer premium"}
    assert premium["en"]["estimate"] == 1.0 and len(premium) == 15
    ranked = [row for row in rows if "gamma" in row]
    assert [row["tokenizer"] for row in ranked] == ["reference", "graded"]
    assert ranked[0]["spearman_ceiling"] < 0.7 and ranked[1]["spearman_ceiling"] > 0.99
    assert "plotly" in (tmp_path / "figure.html").read_text(encoding="utf-8")


def test_heads_are_found_and_switched_off(tmp_path):
    module = load("find_language_heads")
    config = module.Config(
        languages=("en", "fi", "ru"), tokens_per_language=1500, max_tokens=60, draws=9, control_sets=2
    )
    module.run(config, Run(tmp_path))
    rows = Run(tmp_path).results()
    assert sum(row["claim"].startswith("entropy over languages") for row in rows) == 32
    overall = [row for row in rows if row["claim"] == "languages harmed most by their own heads"]
    assert len(overall) == 2 and all(0 <= row["estimate"] <= 3 for row in overall)
    assert "plotly" in (tmp_path / "figure.html").read_text(encoding="utf-8")
