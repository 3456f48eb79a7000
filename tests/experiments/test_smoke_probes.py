"""The probing experiments on something tiny: rows with their controls, and figures drawn from them."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from babelscope.probes import PROBES
from babelscope.probes.probe_runs import ProbeRun
from babelscope.runs import Run

FOLDER = Path(__file__).parents[2] / "experiments"
LANGUAGES = ("en", "de", "fi", "ru")


def load(name):
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("name", "sizes", "figures"),
    [
        ("locate_latent_language", {"tokens": 20, "tuned_tokens": 90, "descent_tokens": 90, "draws": 3}, 7),
        ("map_language_families", {"sentences": 3, "draws": 9}, 4),
    ],
)
def test_a_probing_experiment_writes_rows_and_figures(name, sizes, figures, tmp_path):
    module = load(name)
    run = Run(tmp_path / "run")
    run.folder.mkdir()
    module.run(module.Config(languages=LANGUAGES, out=str(tmp_path), **sizes), run)
    rows = run.results()
    assert rows and all(row["n"] > 0 and row["site"] for row in rows)
    assert len(list(run.folder.glob("*.html"))) == figures
    (measured,) = tmp_path.glob("*.jsonl")
    facts, *kept = [json.loads(line) for line in measured.read_text(encoding="utf-8").splitlines()]
    assert str(tmp_path) not in measured.read_text(encoding="utf-8") and facts["environment"]["processors"]
    assert len(kept) == (3 * (1 + 4) + 3 if name == "locate_latent_language" else len(rows))


def test_each_probe_is_timed_and_the_times_add_up(tmp_path, monkeypatch):
    module = load("benchmark_probes")
    asked = []

    def timed(names, job, out, *, leave_out):
        assert leave_out and out.is_dir()
        asked.append((tuple(names), tuple(job.texts)))
        return ProbeRun(
            rows={"lens": 3, "heads": 4},
            seconds={"lens": 2.0 * len(asked), "heads": 61.0},
            processor_seconds={"lens": 1.0, "heads": 50.0},
            left_out={},
        )

    monkeypatch.setattr(module, "run_probes", timed)
    monkeypatch.setattr(module.torch, "set_num_threads", lambda threads: None)
    run = Run(tmp_path / "run")
    run.folder.mkdir()
    module.run(module.Config(languages=LANGUAGES, rounds=2, out=str(tmp_path)), run)
    assert asked == [(tuple(PROBES), LANGUAGES)] * 2
    assert [(row["probe"], row["median"], row["met"]) for row in run.results()] == [
        ("lens", 3.0, True),
        ("heads", 61.0, False),
        ("together", 64.0, True),
    ]
    assert len((tmp_path / "probe_times.jsonl").read_text(encoding="utf-8").splitlines()) == 4
