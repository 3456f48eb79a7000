"""Every experiment runs on something tiny, and the long one resumes to the same bits."""

import importlib.util
import json
import lzma
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from babelscope import load_corpus
from babelscope.runs import Run

FOLDER = Path(__file__).parents[2] / "experiments"


def load(name):
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def corpus(tmp_path):
    """The bundled sentences in the layout of the training text."""
    for split, name in (("train", "train"), ("valid", "valid")):
        for tag, documents in load_corpus("reference", split=split).items():
            with lzma.open(tmp_path / f"{tag}.{name}.txt.xz", "wt", encoding="utf-8") as file:
                file.writelines(f"{document.text}\n" for document in documents[:40])
    return tmp_path


def small(module, corpus, **more):
    shape = {"vocabulary": 300, "hidden": 32, "neurons": 48, "layers": 2, "heads": 2, "kv_heads": 1, "window": 32}
    return module.Config(
        corpus=str(corpus), tokenizer_bytes=2000, rows=2, steps=6, warmup=2, save_every=2, threads=1, **shape, **more
    )


def test_an_interrupted_training_resumes_bit_for_bit(corpus, tmp_path, monkeypatch):
    module = load("pretrain_reference_model")
    folders = [tmp_path / "whole", tmp_path / "cut"]
    for folder in folders:
        folder.mkdir()
    threads = torch.get_num_threads()
    module.run(small(module, corpus), Run(folders[0]))
    draw = module.draw_batch

    def stop(config, streams, odds, step):
        if step == 5:
            raise KeyboardInterrupt
        return draw(config, streams, odds, step)

    monkeypatch.setattr(module, "draw_batch", stop)
    with pytest.raises(KeyboardInterrupt):
        module.run(small(module, corpus), Run(folders[1]))
    monkeypatch.setattr(module, "draw_batch", draw)
    module.run(small(module, corpus), Run(folders[1]))
    torch.set_num_threads(threads)
    whole, cut = (load_file(folder / "model" / "model.safetensors") for folder in folders)
    assert all(torch.equal(whole[name], cut[name]) for name in whole)
    training = json.loads((folders[0] / "model" / "training.json").read_text())
    assert set(training["trained"]) == set(module.MAIN) | set(module.UNDERSERVED)
    assert f"{training['trained_macro']:.3f}" in (folders[0] / "model" / "README.md").read_text()


def test_the_first_language_is_trained_alone_and_then_beside_the_others(corpus, tmp_path):
    sys.path.insert(0, str(FOLDER))
    module, threads = load("train_into_languages"), torch.get_num_threads()
    weights = {}
    for other in ("de", "fi"):
        folder = tmp_path / other
        folder.mkdir()
        options = {"languages": ("en", other), "first_steps": 1, "keep": (1, 2), "rows": 1, "threads": 1}
        module.run(module.Config(corpus=str(corpus), **options), Run(folder))
        for step in (1, 2):
            weights[other, step] = load_file(folder / f"step-{step:04d}" / "model.safetensors")
        rows = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
        scored = [(row["step"], row["language"]) for row in rows if "bits_per_byte" in row]
        assert scored == [(1, "en"), (1, other), (2, "en"), (2, other)]
    torch.set_num_threads(threads)
    name = "model.layers.0.mlp.gate_proj.weight"
    assert torch.equal(weights["de", 1][name], weights["fi", 1][name])
    assert not torch.equal(weights["de", 2][name], weights["fi", 2][name])


@pytest.mark.parametrize("name", ["benchmark_observe", "benchmark_steering"])
def test_a_benchmark_writes_ratios(name, tmp_path):
    module = load(name)
    sizes = {"tokens": 60, "hidden": 64, "neurons": 96, "layers": 1} if name == "benchmark_observe" else {"rows": 4}
    threads = torch.get_num_threads()
    module.run(module.Config(rounds=2, threads=threads, **sizes), Run(tmp_path))
    rows = Run(tmp_path).results()
    assert rows and all(row["low"] <= row["ratio"] <= row["high"] and row["ratio"] > 0 for row in rows)
