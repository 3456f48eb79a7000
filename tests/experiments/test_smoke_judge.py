"""The measurement of the judge of answers runs on something tiny, and its rows add up."""

import importlib.util
import json
import sys
from pathlib import Path

from babelscope.corpus import as_corpus
from babelscope.runs import Run

FILE = Path(__file__).parents[2] / "experiments" / "measure_judge.py"


def test_the_judge_is_measured_on_made_answers_and_on_lines(tmp_path):
    spec = importlib.util.spec_from_file_location("measure_judge", FILE)
    module = importlib.util.module_from_spec(spec)
    sys.modules["measure_judge"] = module
    spec.loader.exec_module(module)
    run = Run(tmp_path / "run")
    run.folder.mkdir()
    sizes = {"answers": 24, "per_pair": 3, "lines": 5, "neighbours": ("fi-en",), "languages": ("en", "fi")}
    module.run(module.Config(corpus="reference", out=str(tmp_path / "judge.jsonl"), **sizes), run)
    rows = [json.loads(line) for line in (tmp_path / "judge.jsonl").read_text(encoding="utf-8").splitlines()]
    (everything,) = (row for row in rows if row["table"] == "all")
    kinds = [row for row in rows if row["table"] == "kind"]
    assert everything["n"] == 24 == sum(row["n"] for row in kinds)
    assert (
        everything["right"] == sum(row["right"] for row in kinds) == 24 - sum(row["table"] == "error" for row in rows)
    )
    assert everything["right"] >= 22
    assert {row["kind"] for row in rows if row["table"] == "alarm"} == {"line", "name", "code", "quotation"}
    (untold,) = (row for row in rows if row["table"] == "untold")
    assert untold["n"] >= untold["right"] >= 0
    text = module.MeasuredText(as_corpus({"en": ["the cat sat on a mat"], "fi": ["kissa istui Helsinki matolla"]}))
    assert module.tells(text, "en", "fi", "kissa on") and not module.tells(text, "en", "fi", "Helsinki on a mat")
    assert module.tells(text, "en", "ru", "кошка") and not module.tells(text, "en", "ru", "Москва")
    (load,) = (row for row in rows if row["table"] == "load")
    assert load["seconds"] > 0 and load["MB"] >= 0 and load["answers_per_second"] > 0
