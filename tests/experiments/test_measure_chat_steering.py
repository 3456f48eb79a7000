"""The chat experiment on something tiny: ids, answers that are kept, and judging again without a model."""

import importlib
import json
from pathlib import Path

from chat_cases import chat_tokenizer
from conftest import tiny_model

from babelscope.runs import Run

FOLDER = Path(__file__).parents[2] / "experiments"


def test_the_chat_experiment_keeps_its_answers_and_judges_them_again(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    module = importlib.import_module("measure_chat_steering")
    tiny_model("llama").save_pretrained(tmp_path / "model")
    chat_tokenizer().save_pretrained(tmp_path / "model")
    (tmp_path / "text").mkdir()
    for tag in ("en", "de"):
        (tmp_path / "text" / f"{tag}.txt").write_text("".join(f"some words of {tag} {i}\n" for i in range(20)))
    (tmp_path / "run").mkdir()
    config = module.Config(
        model=str(tmp_path / "model"), corpus=str(tmp_path / "text"), targets=("de",), tokens=100, layers=(0, 1),
        new_tokens=4, dev_tokens=3, draws=2, dtype="float32", out=str(tmp_path / "out"),
    )  # fmt: skip
    run = Run(tmp_path / "run")
    module.run(config, run)
    rows = [json.loads(line) for line in (tmp_path / "out" / "chat.jsonl").read_text().splitlines()]
    ids = next(row for row in rows if row["row"] == "ids")
    assert ids["equal"] == ids["of"] == 52
    shares = [row for row in rows if row["row"] == "share" and row["target"] is None]
    assert {(row["way"], row["condition"]) for row in shares} == {
        (way, condition) for way in ("english", "own") for condition in ("plain", "steered", "random", "asked in words")
    }
    assert all(row["n"] == 10 for row in shares)
    assert "model" in rows[0] and str(tmp_path) not in json.dumps(rows)
    kept = tmp_path / "run" / "answers.jsonl"
    lines = [json.loads(line) for line in kept.read_text().splitlines()]
    for line in lines:
        line["answer"] = "Das ist ein ganz gewöhnlicher deutscher Satz über das Wetter von heute."
    kept.write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "again").mkdir()
    module.run(module.replace(config, judge_only=str(kept)), Run(tmp_path / "again"))
    rows = [json.loads(line) for line in (tmp_path / "out" / "chat.jsonl").read_text().splitlines()]
    assert [row["right"] for row in rows if row["row"] == "share"] == [1.0] * 16
    assert sum(row["row"] == "ids" for row in rows) == 1
