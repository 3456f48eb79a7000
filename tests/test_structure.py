"""What was once built several times stays built once, and reading stays short: the counts of the measure, as bars."""

import ast
import importlib.util
import re
import sys
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "babelscope"
BARS = {
    "class names with two meanings": 0,
    "public function names with two meanings": 0,
    "files that share a name": 0,
    "assigned names that say nothing, %": 0.99,
    "broad excepts without a reason in this script": 0,
    "functions without full types": 0,
    "pairs of places with 6 equal lines": 5,
    "modules whose public names no test mentions": 0,
    "reading path, lines": 2_000,
}
"""Measures of experiments/measure_structure.py, and the most that each may be."""
MOST_LINES = 298
"""Of a file of the library."""
MACHINES = {
    "road of text through a model": (r"\bbatch_documents\((?!$)", {"recording/walk.py"}),
    "resampler of shards": (r"torch\.randint\(n_shards", {"controls/shards.py"}),
    "draw with replacement": (r"\.multinomial\(n|torch\.randint\(n, \(", {"controls/bootstrap_draws.py"}),
    "durable writer": (r"\bos\.fsync\(", {"files/writing.py"}),
    "format of an interrupted run": (r"\"babelscope\.state/", {"files/state_folder.py"}),
    "AdamW of whole tensors": (r"import adamw$", {"subnetworks/fused_adamw.py"}),
    "AdamW of rows": (r"import rows_adamw_$", {"subnetworks/row_optimizer.py"}),
}
"""A sign in the source of each machine that stands once, and the files that may have it."""


@cache
def measured():
    """(value, places) of every measure by its name."""
    file = ROOT / "experiments" / "measure_structure.py"
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None and spec.loader is not None
    module = sys.modules[file.stem] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return {name: (value, places) for name, value, places in module.measures()}


@pytest.mark.parametrize("name", BARS)
def test_a_measure_of_the_structure_stays_within_its_bar(name):
    value, places = measured()[name]
    assert value <= BARS[name], places


def test_no_file_is_longer_than_a_reader_takes_in():
    lengths = {str(path.relative_to(SOURCE)): lines_of(path) for path in SOURCE.rglob("*.py")}
    assert {name for name, lines in lengths.items() if lines > MOST_LINES} == set()


def lines_of(path):
    return len(path.read_text(encoding="utf-8").splitlines())


@pytest.mark.parametrize("name", MACHINES)
def test_a_machine_stands_once(name):
    pattern, files = MACHINES[name]
    users = {
        str(path.relative_to(SOURCE))
        for path in SOURCE.rglob("*.py")
        if any(re.search(pattern, line) for line in path.read_text(encoding="utf-8").splitlines() if "def " not in line)
    }
    assert users == files


def imported_files(path):
    """Files of babelscope that a file imports when it is itself imported; those of packages import lazily."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("babelscope."):
            file = SOURCE.joinpath(*node.module.split(".")[1:]).with_suffix(".py")
            if file.is_file():
                yield file


def test_no_file_imports_itself_by_way_of_others():
    TopologicalSorter({path: set(imported_files(path)) for path in SOURCE.rglob("*.py")}).prepare()


def test_random_numbers_are_drawn_on_the_cpu():
    """A GPU's generator gives other numbers of the same seed."""
    files = [path for path in SOURCE.rglob("*.py") if re.search(r"torch\.Generator\((?!\))", path.read_text("utf-8"))]
    assert files == []
