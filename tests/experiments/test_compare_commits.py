"""The comparison of two commits: its files, its figures, and that it works in the tree that it names."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

FILE = Path(__file__).parents[2] / "experiments" / "compare_commits.py"


@pytest.fixture(scope="module")
def module():
    spec = importlib.util.spec_from_file_location(FILE.stem, FILE)
    module = importlib.util.module_from_spec(spec)
    sys.modules[FILE.stem] = module
    spec.loader.exec_module(module)
    return module


def test_a_workload_stands_beside_the_other_commit_and_beside_a_copy(module):
    def timed(seconds, values):
        return [module.Timed({"train": second}, {"train": values}) for second in seconds]

    rows = module.compared(
        "train",
        {
            module.HERE: timed([1.0, 1.0, 2.0], [4.0, 2.0]),
            module.OTHER: timed([0.9, 0.97, 1.8], [4.0, 1.0]),
            module.COPY: timed([1.0, 1.02, 2.0], [4.0]),
        },
    )
    other, copy = rows
    assert (other["beside"], copy["beside"]) == (module.OTHER, module.COPY)
    assert other["seconds"] == 1.0 and other["seconds_there"] == 0.97
    assert (other["speed"], other["low"], other["high"]) == pytest.approx((0.9, 0.9, 0.97))
    assert not other["as_fast"] and copy["as_fast"]
    assert other["largest_difference"] == 0.25
    assert copy["largest_difference"] is None  # Not as many values: the trees do different things.


def test_a_tree_holds_the_files_of_its_commit(module, tmp_path, monkeypatch):
    repository = tmp_path / "repository"
    repository.mkdir()
    monkeypatch.setattr(module, "ROOT", repository)

    def git(*words):
        names = ("-c", "user.name=a", "-c", "user.email=a@b")
        subprocess.run(["git", "-C", str(repository), *names, *words], check=True, capture_output=True)

    git("init")
    for text in ("earlier", "later"):
        (repository / "file").write_text(text)
        git("add", "file")
        git("commit", "-m", text)
    (repository / "file").write_text("not committed")
    module.check_out("HEAD~1", tmp_path / "one")
    module.check_out("HEAD", tmp_path / "two")
    assert [(tmp_path / name / "file").read_text() for name in ("one", "two")] == ["earlier", "later"]
    assert module.commit_name("HEAD~1").endswith("earlier")


def test_a_tree_without_the_library_is_not_measured_by_another(module, tmp_path):
    with pytest.raises(RuntimeError, match="babelscope came from .* expected a file of"):
        module.work_in(tmp_path, 1, tmp_path / "compiled")
