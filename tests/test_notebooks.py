"""The notebooks hold what their code printed, all of it run in order, and are light."""

import json
import re
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "docs" / "notebooks").glob("*.ipynb"))
NAMES = {"which-neurons-are-finnish", "it-answers-in-english-make-it-stop", "teach-it-basque-and-share-it"}


def cells(path, kind="code"):
    return [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == kind]


def test_there_are_three():
    assert {path.stem for path in NOTEBOOKS} == NAMES


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_it_printed_is_stored_and_it_is_light(path):
    code = cells(path)
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert all(cell["outputs"] for cell in code[1:])
    assert all(output["output_type"] == "stream" for cell in code for output in cell["outputs"])
    assert path.stat().st_size < 1_000_000
    words = "".join("".join(cell["source"]) for cell in cells(path, "markdown"))
    assert "In Colab" in words
    for link in re.findall(r"\]\(([^)#\s]+)\)", words):
        assert (path.parent / link).is_file()
