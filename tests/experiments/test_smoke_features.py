"""The experiments about features run on something tiny."""

import importlib.util
import json
import lzma
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from babelscope import load_corpus
from babelscope.features import load_sae
from babelscope.runs import Run

FOLDER = Path(__file__).parents[2] / "experiments"
TWO = ("en", "fi")


def load(name):
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def test_the_sensitivity_of_langfir_has_a_row_a_setting_and_language(tmp_path):
    module, run = load("sensitivity_langfir"), Run(tmp_path)
    given = {"languages": TWO, "tokens": 120, "taus": (0.3, 0.5), "ratios": (3.0, float("inf")), "seeds": (0, 1)}
    module.run(module.Config(**given, sequences=(2, 4), length=8, min_count=2), run)
    rows = run.results()
    assert {row["setting"] for row in rows} == {"tau", "ratio", "sequences", "seed", "random from", "half of the text"}
    default = [row for row in rows if row["setting"] == "tau" and row["value"] == 0.5]
    assert len(default) == 2 and all(row["jaccard"] in (1, None) for row in default)
    assert all(row["kept"] <= min(10, row["size"]) for row in rows) and sum(row["size"] for row in rows) > 0
    assert "plotly" in (tmp_path / "figure.html").read_text()


def test_the_ablation_of_features_chooses_on_validation_text_and_reports_test_text(tmp_path):
    module, run = load("ablate_language_features"), Run(tmp_path)
    given = {"languages": TWO, "caps": (2, 1), "tokens": 150, "sequences": 4, "min_count": 2}
    module.run(module.Config(**given, valid_tokens=20, test_tokens=20, draws=2), run)
    valid, test = ([row for row in run.results() if row["part"] == part] for part in ("valid", "test"))
    assert [row["cap"] for row in valid] == [2, 1] and [row["language"] for row in test] == ["en", "fi"]
    best = max(valid, key=lambda row: (row["five_times_others"], row["mean_log_ratio"]))
    assert {row["cap"] for row in test} == {best["cap"]} and all(len(row["matched_harm"]) == 2 for row in test)
    summary = json.loads((tmp_path / "features.json").read_text())
    assert summary["sae_hash"] == load_sae("reference").hash and 0 <= summary["specific"] <= 2
    assert "plotly" in (tmp_path / "figure.html").read_text()


@pytest.mark.skipif(find_spec("sae_lens") is None, reason="sae-lens is not installed; pip install 'babelscope[sae]'")
@pytest.mark.filterwarnings("ignore:The 'utils' module has been deprecated:DeprecationWarning")
def test_training_makes_autoencoders_and_a_bundle_that_opens(tmp_path):
    module, run = load("train_reference_saes"), Run(tmp_path / "run")
    run.folder.mkdir()
    for split in ("train", "valid"):
        for tag, documents in load_corpus("reference", split=split).items():
            with lzma.open(tmp_path / f"{tag}.{split}.txt.xz", "wt", encoding="utf-8") as file:
                file.writelines(f"{document.text}\n" for document in documents[:20])
    config = module.Config(
        corpus=str(tmp_path),
        cache=str(tmp_path / "cache"),
        saes=("batchtopk-1", "topk-0", "jumprelu-1"),
        bundle="batchtopk-1",
        features=64,
        k=4,
        tokens=40,
        batch=64,
        held_out=10,
    )
    module.run(config, run)
    rows = {row["sae"]: row for row in run.results()}
    assert set(rows) == set(config.saes) and rows["topk-0"]["l0"] <= 4 and rows["topk-0"]["site"] == "0.resid_out"
    bundle = load_sae(run.folder / "bundle")
    assert bundle.n_features == 64 and bundle.model_hash and str(bundle.site) == "1.resid_out"
    card = (run.folder / "bundle" / "README.md").read_text()
    assert f"{rows['topk-0']['recovered']:.3f}" in card and "cc-by-sa-4.0" in card
