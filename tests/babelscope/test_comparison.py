"""Methods are compared on the same prompts, chosen on development text, and a stopped run goes on."""

import math

import numpy as np
import pytest
from conftest import tiny_model, tiny_tokenizer

from babelscope import mean_direction, observe
from babelscope.corpus import as_corpus
from babelscope.errors import MeasurementError
from babelscope.languages import Language
from babelscope.runs import Run
from babelscope.steering.sweeps.comparison import (
    NATIVE,
    ComparedMethod,
    Comparison,
    Setting,
    choose_row,
    compare_methods,
    grid,
    summarise,
)
from babelscope.steering.sweeps.fluent_choice import Bounds, Standing, best_fluent

EN, FI = Language("en"), Language("fi")
LINES = {
    "en": [f"the cat sat on a mat {n} times" for n in range(6)],
    "fi": [f"kissa istui matolla {n} kertaa" for n in range(6)],
}


@pytest.fixture(scope="module")
def comparison():
    model, tokenizer, texts = tiny_model("llama"), tiny_tokenizer(), as_corpus(LINES)
    splits = {"valid": texts, "test": texts}
    return Comparison(model, tokenizer, splits, (EN, FI), {"valid": 2, "test": 2}, new_tokens=6)


def two_methods(comparison):
    obs = observe(comparison.model, comparison.tokenizer, LINES, sites=["resid_out"], shards=0)

    def push(setting, target, source):
        direction = mean_direction(obs, target=target, source=source, layer=setting.layer)
        return [direction.add(setting.strength, "raw", schedule=setting.fade)]

    return [
        ComparedMethod(NATIVE, "ceiling", [Setting(0, 0.0)]),
        ComparedMethod("mean", "by hand", grid((0, 1), (3.0,)), push),
    ]


def test_a_stopped_run_goes_on_and_measures_no_row_twice(comparison, tmp_path):
    methods, whole, cut = two_methods(comparison), Run(tmp_path / "whole"), Run(tmp_path / "cut")
    for run in (whole, cut):
        run.folder.mkdir()
    assert compare_methods(comparison, methods, whole, seeds=(0, 1), minutes=60)
    # 1 + 2 settings on development text, 2 seeds of each method on test.
    rows = whole.results()
    assert [(r["method"], r["split"], r["seed"]) for r in rows] == [
        (NATIVE, "valid", 0),
        (NATIVE, "test", 0),
        (NATIVE, "test", 1),
        ("mean", "valid", 0),
        ("mean", "valid", 0),
        ("mean", "test", 0),
        ("mean", "test", 1),
    ]
    assert not compare_methods(comparison, methods, cut, seeds=(0, 1), minutes=-1)
    cut.log(rows[:4])
    assert compare_methods(comparison, methods, cut, seeds=(0, 1), minutes=60)
    plain = [[{k: v for k, v in row.items() if k != "seconds"} for row in run.results()] for run in (whole, cut)]
    assert plain[0] == plain[1]
    assert rows[0]["perplexity_ratio"] == pytest.approx(1.0) and rows[0]["distinct4_ratio"] == pytest.approx(1.0)
    assert rows[5]["perplexity_ratio"] != pytest.approx(1.0)


def test_another_seed_has_other_sentences(comparison):
    method = two_methods(comparison)[1]
    ids = [{a.prompt.id for a in comparison.answers(method, Setting(1, 1.0), "test", seed)} for seed in (0, 1)]
    assert ids == [{"0", "1"}, {"2", "3"}]
    with pytest.raises(MeasurementError, match="too few documents"):
        comparison.answers(method, Setting(1, 1.0), "test", 3)


def row(method, split, right, ratio=1.2, seed=0, strength=1.0, distinct=1.0):
    found = {"method": method, "source": "by hand", "split": split, "seed": seed}
    found |= {"layer": 1, "strength": strength, "end": 0.3, "right": right, "ratio": dict.fromkeys(right, ratio)}
    found |= {"success": float(np.mean(list(right.values()))), "perplexity_ratio": ratio, "distinct4_ratio": distinct}
    return found


def test_the_most_successful_fluent_row_is_chosen():
    rows = [
        row("a", "valid", {"fi": [1, 1]}, 1.9),
        row("a", "valid", {"fi": [1, 0]}, 1.4),
        row("a", "valid", {"fi": [1, 1]}, 1.2, distinct=0.5),
    ]
    assert choose_row(rows) is rows[1]
    assert choose_row(rows[:1] + rows[2:]) is rows[2]
    loud = [row("a", "valid", {"fi": [0, 0]}, math.nan), row("a", "valid", {"fi": [1, 0]}, 2.0)]
    assert choose_row(loud) is loud[1], "a ratio that is no number is not the most fluent"


def test_loops_are_no_more_fluent_for_a_method_than_on_a_curve():
    """A method whose answers are far likelier than native ones; one rule for both, at its very bounds."""
    loops, plain = row("a", "valid", {"fi": [1, 1]}, 0.3), row("a", "valid", {"fi": [1, 0]}, 1.2)
    assert choose_row([loops, plain]) is plain
    odd = row("a", "valid", {"fi": [0, 0]}, 1.9)
    assert choose_row([loops, odd]) is odd, "log 1.9 is nearer to 0 than log 0.3"
    for ratio, distinct in ((0.67, 1.0), (1.47, 0.8), (0.66, 1.0), (1.48, 1.0), (1.0, 0.79), (math.nan, 1.0)):
        fluent = 0.67 <= ratio <= 1.47 and distinct >= 0.8
        assert Bounds().hold(Standing(1.0, ratio, distinct)) is fluent
    rows = [row(NATIVE, split, {"fi": [1, 1]}, 1.0) for split in ("valid", "test")]
    for name, ratio, right in (("loops", 0.3, [1, 1]), ("plain", 1.2, [1, 0])):
        rows += [row(name, split, {"fi": right}, ratio) for split in ("valid", "test")]
    summary = summarise(rows)
    assert summary["best_on_dev"] == "plain" and not summary["methods"]["loops"]["fluent_on_dev"]
    assert summary["per_language"]["fi"]["method"] == "plain"
    assert best_fluent([0, 1], lambda at: Standing(1.0, (1.3, 1.1)[at], 1.0)) == 1, "of equals the lower ratio"


def test_the_summary_by_hand():
    right = {"en": [1, 1, 1, 1], "fi": [1, 1, 1, 1]}
    rows = [row(NATIVE, split, right, 1.0) for split in ("valid", "test")]
    rows += [
        row("good", "valid", {"en": [1, 0], "fi": [1, 1]}),
        row("good", "test", {"en": [1, 0, 1, 1], "fi": [1, 1, 1, 1]}, 1.44),
    ]
    rows += [row("good", "test", {"en": [1, 0, 1, 1], "fi": [1, 1, 0, 1]}, 1.0, seed=1)]
    rows += [row("loud", "valid", {"en": [1, 1], "fi": [1, 1]}, 3.0), row("loud", "test", right, 3.0)]
    summary = summarise(rows)
    good = summary["methods"]["good"]
    assert summary["best_on_dev"] == "good"
    assert (good["n"], good["seeds"], good["success"]) == (16, 2, 13 / 16)
    assert good["by_language"] == {"en": 6 / 8, "fi": 7 / 8}
    assert good["perplexity_ratio"] == pytest.approx(1.2)
    assert good["low"] < 13 / 16 < good["high"]
    assert summary["methods"]["loud"]["of_native"] == 1.0 and not summary["methods"]["loud"]["fluent_on_dev"]
    assert summary["per_language"]["fi"]["method"] == "good"
    assert summary["per_language"]["fi"]["n"] == 8 and summary["per_language"]["fi"]["success"] == 7 / 8
    wider = [*rows, row("loud", "valid", {"en": [1, 1], "fi": [1, 1]}, 1.1, strength=0.5)]
    assert "loud" not in summarise(wider)["methods"]
    wider.append(row("loud", "test", {"en": [1, 0, 0, 0], "fi": [1, 1, 1, 1]}, 1.1, strength=0.5))
    assert summarise(wider)["methods"]["loud"]["success"] == 5 / 8
    silent = [{**r, "right": {"en": [0] * 4, "fi": [0] * 4}} if r["method"] == NATIVE else r for r in rows]
    assert summarise(silent)["methods"]["good"]["of_native"] is None
    with pytest.raises(MeasurementError, match="native"):
        summarise(rows[2:])
