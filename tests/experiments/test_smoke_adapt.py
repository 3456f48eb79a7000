"""The adaptation study and its benchmark on something tiny."""

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from babelscope_kernels.onednn import by_onednn
from conftest import tiny_model
from training_cases import OTHERS, TEXT

from babelscope.runs import Run, open_run

FOLDER = Path(__file__).parents[2] / "experiments"
# peft builds its sparse tensors without saying whether their invariants are to be checked.
pytestmark = pytest.mark.filterwarnings("ignore:Sparse invariant checks are implicitly disabled:UserWarning")


@pytest.fixture
def load(monkeypatch):
    """An experiment's module, also for processes that it starts."""
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.setenv("PYTHONPATH", f"{FOLDER}:{':'.join(path for path in sys.path if path)}")
    return importlib.import_module


@pytest.fixture
def config(tmp_path, tokenizer, load):
    """A study of two languages on a tiny model."""
    tiny_model("llama").save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    for split, cut in (("train", slice(10, 40)), ("valid", slice(0, 10))):
        (tmp_path / "corpus" / split).mkdir(parents=True)
        for tag, lines in {"eu": TEXT, **OTHERS}.items():
            (tmp_path / "corpus" / split / f"{tag}.txt").write_text("\n".join(lines[cut]) + "\n")
    module = load("adapt_underserved_languages")
    return module.Config(
        model=str(tmp_path / "model"),
        corpus=str(tmp_path / "corpus"),
        languages=("eu",),
        others=("en", "fi"),
        shares=(0.02, 0.05),
        seeds=2,
        steps=2,
        tokens_per_step=64,
        max_length=32,
        dev_lines=5,
        test_lines=5,
        observe_tokens=600,
        out=str(tmp_path / "adapt_underserved.jsonl"),
    )


def test_the_study_chooses_rates_measures_seeds_and_draws(config, load, tmp_path, monkeypatch):
    module = load("adapt_underserved_languages")
    monkeypatch.setattr(module, "RATES", {kind: rates[:2] for kind, rates in module.RATES.items()})
    threads = torch.get_num_threads()
    run = Run(tmp_path / "run")
    run.folder.mkdir()
    module.run(config, run)
    torch.set_num_threads(threads)
    rows = run.results()
    main = [row for row in rows if row["stage"] == "main"]
    assert len(main) == 2 * len(module.kinds(config))
    best = {row["kind"]: row["rate"] for row in sorted(rows, key=lambda row: -row["dev"]) if row["stage"] == "rates"}
    assert all(row["rate"] == best[row["kind"]] for row in main)
    assert all(row["gain"] == row["before"]["eu"] - row["after"]["eu"] for row in rows)
    claims = module.verdict(rows)
    assert [(claim["pairs"], claim["share"]) for claim in claims] == [(2, 0.02), (2, 0.05)] * 2
    equal = [row for row in rows if row["stage"] == "equal"]
    assert len(equal) == 4 and {row["rate"] for row in equal} == {best["language"]}
    same = {(row["share"], row["seed"]): row["gain"] for row in main if row["kind"] == "language"}
    differences = [same[row["share"], row["seed"]] - row["gain"] for row in equal if row["share"] == 0.02]
    assert claims[2]["mean_gain_difference"] == pytest.approx(sum(differences) / 2, abs=1e-12)
    assert "<html" in (run.folder / "figure.html").read_text()[:200]
    assert (tmp_path / "adapt_underserved.jsonl").exists()
    module.run(config, run)
    assert len(run.results()) == len(rows)


def test_a_trimmed_model_stays_trimmed_and_every_method_can_replay(config, load, tmp_path):
    """Logits over fewer entries share the mass of those left out: no text of kept tokens can take more bits."""
    module = load("adapt_underserved_languages")
    methods = ("ssu", "lora+replay")
    config = replace(config, model="reference")
    smaller = replace(config, methods=methods, trim=True, n_rates=1, rate_scale=0.5, shares=(0.02,))
    runs = {name: Run(tmp_path / name) for name in ("plain", "trimmed")}
    for run in runs.values():
        run.folder.mkdir()
    plain, trimmed = module.Bench(config, runs["plain"]), module.Bench(smaller, runs["trimmed"])
    assert len(trimmed.tokenizer) < len(plain.tokenizer)
    assert trimmed.model.get_input_embeddings().weight.shape[0] == len(trimmed.tokenizer)
    rows = {
        kind: trimmed.measure(module.Cell(kind, share, "eu", 0, "main", 1e-3)) for kind, share in module.kinds(smaller)
    }
    plain.material("eu", False)
    before = plain.rulers["eu"].before
    assert all(row["before"][tag] < before[tag] for row in rows.values() for tag in before)
    assert rows["ssu"]["trained"] > rows["lora+replay"]["trained"] > 0
    assert [cell.rate for cell in module.rate_cells(smaller, {})] == [5e-4]


def test_where_the_best_rate_stands_at_an_end_the_next_is_tried(config, load):
    module = load("adapt_underserved_languages")
    one = replace(config, methods=("full",), n_rates=3)
    scores = {3e-4: 1.0, 1e-3: 2.0, 3e-3: 3.0}

    def rows():
        return {
            str(rate): {"kind": "full", "stage": "rates", "rate": rate, "dev": score} for rate, score in scores.items()
        }

    assert [cell.rate for cell in module.rate_cells(one, rows())] == [3e-4, 1e-3, 3e-3, 9e-5]
    scores[9e-5] = 1.5
    assert [cell.rate for cell in module.rate_cells(one, rows())] == [3e-4, 1e-3, 3e-3]
    assert [cell.rate for cell in module.main_cells(one, rows())] == [3e-4] * 2


def test_the_frontier_names_the_highest_gain_within_each_harm(monkeypatch, load):
    training = load("tables.training")

    def row(kind, language, gain, harm, seed=0):
        facts = {"kind": kind, "share": 0.0, "language": language, "seed": seed, "stage": "main"}
        return {**facts, "gain": gain, "harm": harm}

    runs = [
        *(row("full", tag, gain, 0.6) for tag, gain in (("eu", 0.9), ("cy", 0.7))),
        *(row("lora", tag, gain, 0.2) for tag, gain in (("eu", 0.5), ("cy", 0.7))),
        *(row("ssu", tag, gain, -0.1) for tag, gain in (("eu", 0.4), ("cy", 0.5))),
        row("shira", "eu", 9.0, 0.0),  # not of every pair: no mean to set beside the others
    ]
    monkeypatch.setattr(training, "read", lambda name: [{}, *runs])
    lines = training.frontier_table("some.jsonl")[2:]
    assert [line.split(" | ")[:2] for line in lines] == [
        ["| 0", "ssu"],
        ["| 0.1", "ssu"],
        ["| 0.25", "lora"],
        ["| 0.5", "lora"],
        ["| 1", "full"],
    ]
    assert lines[2].endswith("| 0.600, +0.200 | ssu | 0.450, -0.100 | +0.100 to +0.200 (2) |")


@pytest.mark.parametrize("way", ["measure_interleaved", "measure_in_turn"])
def test_the_benchmark_counts_and_times_every_variant(way, load, monkeypatch, tmp_path):
    module = load("benchmark_adapt")
    monkeypatch.setattr(module, "build_model", lambda config: tiny_model("llama"))
    threads = torch.get_num_threads()
    run = open_run("bench", {}, root=tmp_path)
    arguments = (run,) if way == "measure_in_turn" else ()
    counted, times, trained = getattr(module, way)(module.Config(rounds=2, share=0.05, length=16), *arguments)
    torch.set_num_threads(threads)
    assert set(counted) == set(times) == set(trained) and all(len(part) == 2 for part in times.values())
    assert counted["fused"][2] == 16 * trained["fused"] + 8
    assert counted["fused, recompute"][1] < counted["fused"][1] < counted["lora r8 mlp"][1]
    assert counted["fused"][0] < counted["ffn mask"][0]
    passes = [(row["variant"], row["pass"], len(row["pass_seconds"])) for row in run.results()]
    assert passes == [(name, half, 1) for half in (0, 1) for name in times if arguments]


def test_a_variant_that_does_not_fit_is_named_and_the_others_go_on(load, monkeypatch, tmp_path):
    module = load("benchmark_adapt")
    monkeypatch.setattr(module, "build_model", lambda config: tiny_model("llama"))
    build = module.build_variant

    def full(name, model, config):
        if name == "ffn mask":
            raise torch.OutOfMemoryError("67 GiB wanted\nand a long trace")
        return build(name, model, config)

    monkeypatch.setattr(module, "build_variant", full)
    run = open_run("bench", {}, root=tmp_path)
    _, times, _ = module.measure_in_turn(module.Config(rounds=2, share=0.05, length=16), run)
    assert set(times) == set(module.ON_GPU) - {"ffn mask"}
    assert {"variant": "ffn mask", "left_out": "67 GiB wanted"} in run.results()


def test_products_in_place_and_by_onednn_are_counted_too(load):
    module = load("benchmark_adapt")
    with module.Flops() as flops:
        torch.zeros(10, 30).addmm_(torch.ones(10, 20), torch.ones(20, 30))
        torch.mm(torch.ones(10, 20), torch.ones(20, 30))
        by_onednn(torch.ones(10, 20), torch.ones(30, 20))
    assert flops.total == 3 * (2 * 10 * 20 * 30)
