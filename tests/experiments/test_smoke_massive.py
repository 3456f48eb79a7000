"""The measurement of massive units runs on a few prompts, and goes on from kept answers."""

import importlib.util
import json
import lzma
import sys
from pathlib import Path

import torch

from babelscope import load_corpus
from babelscope.runs import Run

FILE = Path(__file__).parents[2] / "experiments" / "measure_massive_units.py"


def test_both_forms_are_measured_and_kept_answers_are_scored_again(tmp_path):
    spec = importlib.util.spec_from_file_location(FILE.stem, FILE)
    module = importlib.util.module_from_spec(spec)
    sys.modules[FILE.stem] = module
    spec.loader.exec_module(module)
    for split in ("train", "valid"):
        for tag, documents in load_corpus("reference", ("en", "fi"), split=split).items():
            with lzma.open(tmp_path / f"{tag}.{split}.txt.xz", "wt", encoding="utf-8") as file:
                file.write("\n".join(document.text for document in documents[:40]))
    settings = {"model": "reference", "text": str(tmp_path), "languages": ("en", "fi"), "tokens": 200}
    grid = {"layers": (2,), "raw": (1.0,), "relative": (0.25,), "dev_prompts": 1, "test_prompts": 2, "new_tokens": 4}
    out = tmp_path / "massive_units.jsonl"
    out.write_text(json.dumps({"model": "another", "row": "about"}) + "\n")
    config = module.Config(**settings, **grid, out=str(out), threads=torch.get_num_threads())
    run = Run(tmp_path / "run" / "one")
    run.folder.mkdir(parents=True)
    module.run(config, run)
    rows = run.results()
    assert {row["default"] for row in rows if row["row"] == "stream"} == {"whole"}
    assert len([row for row in rows if row["row"] == "direction"]) == 16
    steered = [(r["kind"], r["form"], r["unit"]) for r in rows if r["row"] == "steering" and r["split"] == "test"]
    assert steered == [
        ("native", "", "raw"),
        ("unsteered", "", "raw"),
        ("steered", "whole", "raw"),
        ("random", "whole", "raw"),
        ("steered", "ordinary", "raw"),
        ("random", "ordinary", "raw"),
        ("steered", "whole", "relative"),
        ("steered", "ordinary", "relative"),
    ]
    assert {row["model"] for row in map(json.loads, out.read_text().splitlines())} == {"another", "reference"}
    # Answers are not written twice: a changed one is what is scored.
    kept = tmp_path / "run" / "reference" / "answers" / "native-test-0.0-raw.json"
    answers = json.loads(kept.read_text())
    kept.write_text(
        json.dumps([{**row, "text": "Helsinki on Suomen pääkaupunki ja suurin kaupunki."} for row in answers])
    )
    module.run(config, run)
    native = next(row for row in run.results() if row["row"] == "steering" and row["kind"] == "native")
    assert native["by_target"] == {"en": 0.0, "fi": 1.0}
