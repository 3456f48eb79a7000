"""The experiment on vocabularies runs on the bundled model, and its rows say what they must."""

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from babelscope import load_corpus
from babelscope.errors import CorpusError, MeasurementError
from babelscope.runs import Run


def load(name):
    path = Path(__file__).parents[2] / "experiments" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def test_trimming_and_extending_give_rows_that_add_up(tmp_path):
    module = load("trim_and_extend")
    (tmp_path / "run").mkdir()
    config = module.Config(
        kept=(("en", "fi"),),
        extended=("eu",),
        size=4,
        learn_bytes=4_000,
        inits=("random", "subword", "distill", "distill-shuffled"),
        score_bytes=2_000,
        generate=2,
        seeds=1,
        out=str(tmp_path / "vocabularies.jsonl"),
    )
    module.run(config, Run(tmp_path / "run"))
    facts, whole, *rows = map(json.loads, (tmp_path / "vocabularies.jsonl").read_text().splitlines())
    assert facts["config"]["size"] == 4 and "out" not in facts["config"]
    assert whole["parameters"][0] - whole["parameters"][1] == 256 * (whole["entries"][0] - whole["entries"][1]) > 0
    assert [row["language"] for row in rows[:2]] == ["en", "fi"]
    none, *begun = rows[2:]
    assert none["init"] == "none" and len(begun) == 4
    assert all(row["tokens"] <= none["tokens"] for row in begun)
    losses = {row["init"]: row["bits_per_byte"] for row in begun}
    assert losses["distill"] < losses["subword"] < losses["random"] and losses["distill"] < losses["distill-shuffled"]
    assert len(set(losses.values())) == 4

    # Another way to begin is added to the same file; the rows that are there stay, and other settings are refused.
    again = replace(config, inits=("translate",), jobs=("extend",), pairs=str(tmp_path))
    with pytest.raises(CorpusError, match="eu-en.tsv: not there"):
        module.run(again, Run(tmp_path / "run"))
    sides = zip(*(load_corpus("reference")[tag] for tag in ("eu", "en")), strict=True)
    (tmp_path / "eu-en.tsv").write_text("".join(f"{a.text}\t{b.text}\n" for a, b in sides))
    (tmp_path / "second").mkdir()
    module.run(again, Run(tmp_path / "second"))
    facts, *more = map(json.loads, (tmp_path / "vocabularies.jsonl").read_text().splitlines())
    assert more[:-1] == [whole, *rows] and more[-1]["init"] == "translate" == facts["config"]["inits"][-1]
    assert 0 < more[-1]["alignment"]["aligned"] <= 4 and len(facts["config"]["inits"]) == 5
    with pytest.raises(MeasurementError, match="measured with another size"):
        module.run(replace(again, size=5), Run(tmp_path / "second"))


def test_training_new_rows_gives_rows_that_add_up(tmp_path, monkeypatch):
    module = load("extend_to_underserved_languages")
    (tmp_path / "run").mkdir()
    config = module.Config(
        languages=("cy",),
        others=("en",),
        size=4,
        train_lines=60,
        held_lines=4,
        steps=2,
        tokens_per_step=128,
        observe_tokens=300,
        samples=1,
        out=str(tmp_path / "extended.jsonl"),
    )
    monkeypatch.setattr(module, "TIMES", (1.0,))
    monkeypatch.setattr(module, "WAYS", ("neurons", "rows", "rows and random neurons"))
    module.run(config, Run(tmp_path / "run"))
    facts, untrained, *rows = map(json.loads, (tmp_path / "extended.jsonl").read_text().splitlines())
    assert facts["config"]["steps"] == 2 and untrained["way"] == "rows untrained" and untrained["entries"] == 4
    assert [row["way"] for row in rows] == ["neurons", "rows", "rows and random neurons"]
    assert all(row["gain"] == pytest.approx(row["before"] - row["bits_per_byte"]) for row in (untrained, *rows))
    assert len({row["before"] for row in rows}) == 1 and rows[0]["neurons"] > 0
    assert rows[1]["tokens_per_byte"] == untrained["tokens_per_byte"] <= rows[0]["tokens_per_byte"]
    # The rate of neurons is a share of their own size, that of rows of theirs.
    assert rows[0]["rate"] != rows[1]["rate"] and rows[1]["steps"] <= rows[0]["steps"] == 2
