"""The experiments on units run on something tiny."""

import dataclasses
import importlib.util
import sys
from pathlib import Path

import numpy as np

from babelscope import load_corpus
from babelscope.reference import MODEL
from babelscope.runs import Run

FOLDER = Path(__file__).parents[2] / "experiments"


def load(name):
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def test_training_shares_of_known_mixtures_are_measured(tmp_path):
    module = load("measure_training_shares")
    sizes = {"bytes_trained": 30_000, "bytes_per_language": 20_000, "vocabulary": 400, "merges": 60, "runs": 4}
    places = {"mono": "reference", "tokenizers": (str(MODEL),), "out": str(tmp_path)}
    run = Run(tmp_path / "run")
    run.folder.mkdir()
    module.run(module.Config(languages=("en", "ru"), mixtures=1, **places, **sizes), run)
    rows = list(run.results())
    assert [row["tokenizer"].split(",")[0] for row in rows] == ["known mixture 0", "known mixture 0", MODEL.name]
    for row in rows:
        assert row["languages"] == len(row["inferred"]) and (row["identified"] == row["languages"] or row["why"])
    assert len((tmp_path / "training_shares.jsonl").read_text(encoding="utf-8").splitlines()) == 4


def test_the_tokenizer_is_measured(tmp_path):
    module = load("measure_tokenizer_premium")
    settings = {"mono": "", "bytes_per_language": 3000, "merges": 60, "resamples": 2, "out": str(tmp_path)}
    run = Run(tmp_path / "run")
    run.folder.mkdir()
    module.run(module.Config(**settings, graded=1, graded_vocabulary=400, graded_bytes=5000), run)
    rows = run.results()
    premium = {row["language"]: row for row in rows if row.get("claim") == "tokenizer premium"}
    assert premium["en"]["estimate"] == 1.0 and len(premium) == 15
    ranked = [row for row in rows if "gamma" in row]
    assert [row["tokenizer"] for row in ranked] == ["reference", "reference", "graded"]
    assert ranked[0]["spearman_ceiling"] < 0.8 and ranked[0]["largest_outside"] is None
    assert "<svg" in (run.folder / "figure.html").read_text(encoding="utf-8")
    assert len((tmp_path / "tokenizer.jsonl").read_text(encoding="utf-8").splitlines()) == len(rows) + 1


def test_candidates_from_outside_a_recipe_are_ranked_last_and_tied():
    module = load("measure_tokenizer_premium")
    found = load_corpus("reference", ("en", "fi", "ru", "hi"), split="train")
    tokenizer = module.AutoTokenizer.from_pretrained(module.MODEL)
    shares = module.infer_training_shares(tokenizer, found, merges=20, decoy=False)
    shares = dataclasses.replace(shares, fit=shares.fit._replace(share=np.array([0.6, 0.398, 0.002, 0.0])))
    known = {"en": 0.5, "fi": 0.5, "ru": 0.0, "hi": 0.0}
    row = module.agreement(known, shares, 0.005)
    # Ranks (3.5 3.5 1.5 1.5) against (4 3 1.5 1.5): 4 / sqrt(4 · 4.5); pairs told apart: all four.
    assert row["spearman"] == row["spearman_ceiling"] == round(4 / 18**0.5, 4) and row["gamma"] == 1.0
    assert row["as_inferred"]["spearman_ceiling"] == round(4 / 20**0.5, 4)
    assert (row["largest_outside"], row["smallest_inside"]) == (0.002, 0.398)
    swapped = module.agreement({"en": 0.0, "fi": 0.5, "ru": 0.5, "hi": 0.0}, shares, 0.005)
    assert swapped["gamma"] == (-1 - 1 + 1 + 0) / 4 and swapped["spearman"] < 0.3 < swapped["spearman_ceiling"]


def test_heads_are_found_and_switched_off(tmp_path):
    module = load("find_language_heads")
    config = module.Config(
        languages=("en", "fi", "ru"),
        tokens_per_language=1500,
        max_tokens=60,
        draws=9,
        control_sets=2,
        out=str(tmp_path),
    )
    run = Run(tmp_path / "run")
    run.folder.mkdir()
    module.run(config, run)
    rows = run.results()
    assert sum(row["claim"].startswith("entropy over languages") for row in rows) == 32
    overall = [row for row in rows if row["claim"] == "languages harmed most by their own heads"]
    assert len(overall) == 2 and all(0 <= row["estimate"] <= 3 for row in overall)
    assert "<svg" in (run.folder / "figure.html").read_text(encoding="utf-8")
    kept = (tmp_path / "language_heads.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(kept) == 1 + 1 + 3 + 2 * (3 + 1)


def test_sets_of_several_bodies_of_text_are_compared(tmp_path):
    module = load("compare_text_sources")
    lines = load_corpus("reference", ("en", "fi", "hi"), split="train")
    for name, cut in (("mono", slice(0, 120)), ("news", slice(120, 240))):
        (tmp_path / name / "train").mkdir(parents=True)
        for tag, texts in lines.items():
            text = "".join(f"{document.text}\n" for document in texts[cut])
            (tmp_path / name / ("train" if name == "mono" else "") / f"{tag}.txt").write_text(text, encoding="utf-8")
    (tmp_path / "news" / "train").rmdir()
    config = module.Config(
        monolingual=str(tmp_path / "mono"),
        parallel=str(tmp_path / "news"),
        languages=("en", "fi", "hi"),
        methods=("lape",),
        top_rates=(0.05,),
        tokens=600,
        out=str(tmp_path),
    )
    run = Run(tmp_path / "run")
    run.folder.mkdir()
    module.run(config, run)
    rows = run.results()
    assert len(rows) == 6 and all(len(row["jaccard"]) == 3 for row in rows)
    assert all(row["low"] <= row["mean"] <= row["high"] and row["mean_chance"] < row["mean"] for row in rows)
    assert len({tuple(row["pair"]) for row in rows}) == 6
    assert "<svg" in (run.folder / "figure.html").read_text(encoding="utf-8")
    assert len((tmp_path / "text_sources.jsonl").read_text(encoding="utf-8").splitlines()) == 7
