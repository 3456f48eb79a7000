"""The notebooks run from top to bottom with small budgets, and hold what they printed with whole ones."""

import json
import re
from pathlib import Path

import pytest
import torch

NOTEBOOKS = sorted((Path(__file__).parents[1] / "docs" / "notebooks").glob("*.ipynb"))
BUDGETS = {
    "which-neurons-are-finnish": "TOKENS, DRAWS, SCORED = 1500, 2, 40",
    "it-answers-in-english-make-it-stop": "TOKENS, PROMPTS, NEW_TOKENS = 600, 2, 8\nLAYERS, STRENGTHS = (1,), (1.3,)",
    "teach-it-basque-and-share-it": "TOKENS, STEPS, DOCUMENTS, LEARNING_RATE = 1500, 1, 3, 3e-3",
}


def cells(path, kind="code"):
    return [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == kind]


def test_there_are_three():
    assert {path.stem for path in NOTEBOOKS} == set(BUDGETS)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_code_runs_in_order(path, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    budget, *others = ["".join(cell["source"]) for cell in cells(path)]
    assert set(re.findall(r"\b[A-Z_]{5,}\b", budget)) == set(re.findall(r"\b[A-Z_]{5,}\b", BUDGETS[path.stem]))
    names: dict = {"__name__": path.stem}
    with torch.random.fork_rng():
        for number, code in enumerate([BUDGETS[path.stem], *others]):
            exec(compile(code, f"{path.name}, cell {number}", "exec"), names)
    assert not any(module._forward_hooks for module in names["model"].modules())
    assert capsys.readouterr().out


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
