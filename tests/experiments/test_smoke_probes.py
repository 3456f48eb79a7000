"""The probing experiments on something tiny: rows with their controls, and figures drawn from them."""

import importlib.util
import sys
from pathlib import Path

import pytest

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
        ("locate_latent_language", {"tokens": 20, "tuned_tokens": 90, "draws": 3}, 4),
        ("map_language_families", {"sentences": 3, "draws": 9}, 4),
    ],
)
def test_a_probing_experiment_writes_rows_and_figures(name, sizes, figures, tmp_path):
    module = load(name)
    module.run(module.Config(languages=LANGUAGES, **sizes), Run(tmp_path))
    rows = Run(tmp_path).results()
    assert rows and all(row["n"] > 0 and row["site"] for row in rows)
    assert len(list(tmp_path.glob("*.html"))) == figures
