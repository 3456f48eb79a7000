"""What runs on a GPU: its experiments, on the CPU; and its rows, a later folder's in the place of an earlier one's."""

import json
import sys
from pathlib import Path

import pytest
from babelscope_kernels.results import Row, append

FOLDER = Path(__file__).parents[2] / "experiments"
ROW = Row(
    "swiglu", "forward", "ours", 0.5, 0.4, 0.6, "ms", "8x8", "bfloat16", 1.0, 2.0, 0.9, 1.0, 4.0, 7.0,
    "a card", "2", "3", "abc1234", "today",
)  # fmt: skip


@pytest.fixture
def collect(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    sys.modules.pop("collect_gpu_rows", None)
    import collect_gpu_rows

    return collect_gpu_rows


def folder_of(path, commit, ratio, kernel_rows=()):
    path.mkdir()
    (path / "passes.done").write_text(f"{commit} cuda\n")
    (path / "benchmark_gpu_passes.jsonl").write_text(json.dumps({"what": "observe", "ratio": ratio}) + "\n")
    (path / "benchmark_adapt.jsonl").write_text(json.dumps({"variant": "half a step"}) + "\n")
    (path / "check.done").write_text(f"{commit} cuda\n")
    (path / "check-swiglu.log").write_text("a warning\nswiglu: 130 outcomes are good\n")
    (path / "kernels").mkdir()
    append(path / "kernels", list(kernel_rows))
    return path


def test_the_rows_of_two_runs(collect, tmp_path):
    results, out = tmp_path / "results", tmp_path / "gpu.jsonl"
    results.mkdir()
    first = folder_of(tmp_path / "one", "abc1234", 1.2, [ROW])
    second = folder_of(tmp_path / "two", "def5678", 1.04)
    config = collect.Config((first, second), out, results)
    collect.run(config)
    collect.run(config)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    # The step did not end: it has no mark that it was done.
    assert rows == [
        {"part": "passes", "commit": "abc1234", "what": "observe", "ratio": 1.2},
        {"part": "passes", "commit": "def5678", "what": "observe", "ratio": 1.04},
        {"part": "check", "commit": "def5678", "kernel": "swiglu", "good": 130},
    ]
    assert (results / "swiglu.csv").read_text() == (first / "kernels" / "swiglu.csv").read_text()


@pytest.fixture
def run(tmp_path):
    from babelscope.runs import open_run

    return open_run("on a CPU", {}, root=tmp_path)


def test_the_cpu_beside_itself_differs_in_nothing(run, monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    import compare_gpu_with_cpu as experiment

    config = experiment.Config(
        ("reference",), device="cpu", languages=("en", "fi"), tokens=200, prompts=1, new_tokens=3, steps=1, layer=1
    )
    experiment.run(config, run)
    rows = {row["what"]: row for row in run.results()}
    apart = {name: value for name, value in rows["observe"].items() if "counts" in name or "sums" in name}
    assert len(apart) == 6 and set(apart.values()) == {0}
    for name in ("generate, plain", "generate, add", "generate, project out"):
        assert rows[name]["tokens"] == 6 and rows[name]["tokens equal"] == 1 and rows[name]["logits apart"] == 0
    assert rows["strength 0"]["bits equal"] is True
    assert rows["train"]["values apart"] == rows["train, CPU fused"]["values apart"] < 1e-3


def test_a_difference_between_devices_is_seen(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    import compare_gpu_with_cpu as experiment

    config = experiment.Config(device="cpu", languages=("en", "fi"), tokens=100)
    texts = experiment.bs.load_corpus("reference", ["en", "fi"])
    model, tokenizer = experiment.open_on("cpu", "reference", config)
    ours = experiment.observed(model, tokenizer, texts, config)
    with experiment.torch.no_grad():
        model.model.layers[0].mlp.gate_proj.weight[0].neg_()
    row = experiment.compare_observations(experiment.observed(model, tokenizer, texts, config), ours)
    assert row["mlp_gate counts unequal"] > 0 and row["mlp_gate sums apart"] > 1e-4


def test_passes_are_timed_beside_the_bare_ones(run, monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    import benchmark_gpu_passes as experiment

    config = experiment.Config(
        model="llama-25m", device="cpu", dtype="float32", documents=2, length=16, rows=2, new_tokens=2, rounds=2
    )
    experiment.run(config, run)
    rows = run.results()
    assert [row["base"] for row in rows] == ["body"] * 2 + ["generate"] * 3
    assert all(row["low"] <= row["ratio"] <= row["high"] for row in rows)
