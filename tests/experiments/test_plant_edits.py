"""Planted edits reach those of fifteen languages that share the edited neurons; tables say what was measured."""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "experiments"))

import plant_edits  # noqa: E402
from tables.editing import edits_table, lines_of_edits, share_beside_control  # noqa: E402

from babelscope.runs import Run  # noqa: E402


def test_an_edit_reaches_the_languages_that_share_its_neurons_and_no_others(tmp_path):
    run = Run(tmp_path / "run")
    run.folder.mkdir()
    plant_edits.run(plant_edits.Config(edits=2, out=str(tmp_path)), run)
    text = (tmp_path / "planted_edits.jsonl").read_text(encoding="utf-8")
    facts, *lines = [json.loads(line) for line in text.splitlines()]
    assert facts["edits"] == 2 and len(lines) == 3 * len(plant_edits.LANGUAGES) >= 45
    assert {line["method"] for line in lines} == {"rank one", "few neurons", "memit"}
    for line in lines:
        assert line["new"] == float(line["shares"]) and line["unmoved"] == 1
        assert line["new_by_control"] is not None and line["unmoved_by_control"] is not None


def test_a_table_of_edits_has_every_share_beside_its_control():
    line = {"method": "memit", "language": "fi", "new": 0.5, "new_by_control": 0.25, "unmoved": 1.0}
    line["unmoved_by_control"] = None
    assert share_beside_control(line) == "0.50 (0.25); 1.00 (–)"
    assert share_beside_control({**line, "unmoved": None}) == "0.50 (0.25); –"
    assert edits_table([line], ("asked in",), [("fi",)]) == [
        "| asked in | memit: holds; others unmoved |", "|---|---|", "| fi | 0.50 (0.25); 1.00 (–) |"
    ]  # fmt: skip
    assert lines_of_edits({"row": 44}) == [] and len(lines_of_edits({"row": 44, "table": [{**line, "edits": 5}]})) == 5
