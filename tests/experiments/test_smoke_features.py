"""The experiments about features run on something tiny."""

import importlib.util
import json
import lzma
import shutil
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from babelscope import load_corpus, open_model
from babelscope.features import load_sae, observe_features
from babelscope.reference import SAE, SAE_COARSE
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
    facts, *again = [json.loads(line) for line in (tmp_path / "langfir_sensitivity.jsonl").read_text().splitlines()]
    assert again == rows and facts["config"]["ratios"] == ["3.0", "inf"]
    assert all(row["kept"] <= min(10, row["size"]) for row in rows) and sum(row["size"] for row in rows) > 0
    assert "<svg" in (tmp_path / "figure.html").read_text()


def test_the_ablation_of_features_chooses_on_validation_text_and_reports_test_text(tmp_path):
    module, run = load("ablate_language_features"), Run(tmp_path)
    for name, other in (("reference", SAE_COARSE), ("reference-coarse", SAE)):
        shutil.copytree(other, tmp_path / "seed" / name)
    given = {"languages": TWO, "caps": (2, 1), "taus": (0.5,), "tokens": 150, "sequences": 4, "min_count": 2}
    small = {"valid_tokens": 20, "valid_draws": 2, "test_tokens": 20, "draws": 2}
    config = module.Config(**given, **small, seeds=(str(tmp_path / "seed"),))
    module.run(config, run)
    valid, test = ([row for row in run.results() if row["part"] == part] for part in ("valid", "test"))
    assert [(row["sae"], row["cap"]) for row in valid] == [
        (name, cap) for name in ("reference", "reference-coarse") for cap in (2, 1)
    ]
    best = max(valid, key=lambda row: (row["passed"], -row["miss"]))
    assert {(row["sae"], row["cap"]) for row in test} == {(best["sae"], best["cap"])}
    found = json.loads((tmp_path / "features.json").read_text())
    assert found["chosen"]["sae_hash"] == load_sae(best["sae"]).hash and set(found["test"]["controls"]) == set(
        module.CONTROLS
    )
    for row in test:
        controls = row["controls"]
        ranked = [controls[module.MATCHED], controls[module.LOUD]]
        assert all(len(one["harm"]) == 2 and 0 < one["p"] <= 1 for one in ranked)
        assert len(controls[module.LOUDEST]["harm"]) == 1 and controls[module.LOUD]["achieved"]["times"] >= 1
        assert all(0 < share < 1 for share in (row["taken"], *(one["taken"] for one in controls.values())))
        loudest, matched = (controls[name]["achieved"]["energy"] for name in (module.LOUDEST, module.MATCHED))
        assert loudest >= matched
    assert found["test"]["languages"] == 2 and 0 <= found["test"]["controls"][module.MATCHED]["specific"] <= 2
    (again,) = found["seeds"]
    assert again["sae_hash"] != found["test"]["sae_hash"] and len({row["sae_hash"] for row in test}) == 2
    assert all("<svg" in path.read_text() for path in tmp_path.glob("figure-*.html"))
    before = run.results()
    module.run(config, run)
    assert run.results() == before, "measured once"


def test_a_setting_without_controls_passes_in_no_language():
    module = load("ablate_language_features")
    given = {"languages": TWO, "caps": (1,), "taus": (0.5,), "tokens": 100, "sequences": 2, "valid_tokens": 20}
    config = module.Config(saes=("reference-coarse",), min_count=10**6, **given)
    model, tokenizer = open_model("reference", device="cpu")
    sae = load_sae("reference-coarse")
    texts = load_corpus("reference", TWO, split="train")
    observed = observe_features(model, tokenizer, texts, sae, tokens_per_language=100, random_sequences=2, shards=2)
    row = module.on_validation_text(config, module.Setting(sae, observed, 0.5, 1), model, tokenizer)
    assert row["passed"] == 0 and row["miss"] == float("inf") and "no language has a feature" in row["why"]


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
        saes=("batchtopk-1", "topk-0", "jumprelu-1", "batchtopk-1-32-3"),
        bundle=("batchtopk-1", "batchtopk-1-32-3"),
        features=64,
        k=4,
        tokens=40,
        batch=64,
        held_out=10,
    )
    module.run(config, run)
    rows = {row["sae"]: row for row in run.results()}
    assert set(rows) == set(config.saes) and rows["topk-0"]["l0"] <= 4 and rows["topk-0"]["site"] == "0.resid_out"
    bundle, coarse = (load_sae(run.folder / "bundle" / name) for name in config.bundle)
    assert bundle.n_features == 64 and bundle.model_hash and str(bundle.site) == "1.resid_out"
    assert coarse.n_features == 32 and coarse.site == bundle.site
    card = (run.folder / "bundle" / "batchtopk-1" / "README.md").read_text()
    assert f"{rows['topk-0']['recovered']:.3f}" in card and "cc-by-sa-4.0" in card
    facts, *table = [json.loads(line) for line in (run.folder / "saes.jsonl").read_text().splitlines()]
    assert [row["sae"] for row in table] == list(config.saes) and facts["config"]["k"] == 4
    made = tmp_path / "cache" / "1" / "fi.safetensors"
    changed = made.stat().st_mtime_ns
    module.record(replace(config, saes=("topk-1", "topk-2")))
    assert made.stat().st_mtime_ns == changed and (tmp_path / "cache" / "2" / "fi.safetensors").exists()
