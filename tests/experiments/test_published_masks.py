"""The check of published masks, on files of the published form made here."""

import importlib
from pathlib import Path

import numpy as np
import pytest
import torch

from babelscope.errors import PrerequisiteError
from babelscope.runs import Run

FOLDER = Path(__file__).parents[2] / "experiments"
LAYERS, NEURONS = 3, 40


@pytest.fixture
def module(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    found = importlib.import_module("check_published_masks")
    made = (found.Published("made.pth", LAYERS, NEURONS, "en fi sw", 0.1),)
    monkeypatch.setattr(found, "MASKS", made)
    monkeypatch.setattr(found, "TEN", ("en", "fi", "sw"))
    return found


@pytest.fixture
def published(tmp_path, module):
    """Counts of answers and prompts, a mask by LAPE, and one by the entropy-λ rule written out."""
    rng = np.random.default_rng(0)
    tokens = np.array([500, 700, 900])
    active = rng.binomial(tokens, rng.random((LAYERS, NEURONS, 3)) ** 3)
    for k, tag in enumerate(module.TEN):
        for kind, times in (("", 2), ("prefix.", 1)):
            counts = {"over_zero": torch.tensor(active[..., k] * times), "total_tokens": int(tokens[k]) * times}
            torch.save(counts, tmp_path / f"{kind}activation.{tag}.{module.COUNTED}.pt")
    save(tmp_path / "made.pth", module.lape_by_numpy(active, tokens, 0.1, 0.95))
    p = active / tokens
    q = p / p.sum(-1, keepdims=True)
    entropy = -np.where(q > 0, q * np.log(np.where(q > 0, q, 1)), 0).sum(-1) / np.log(3)
    score = entropy - module.PENALTY * p.max(-1) / ((1 + 1 / 2 + 1 / 3) / 3)
    chosen = np.zeros(score.size, dtype=bool)
    chosen[np.argsort(score.ravel(), kind="stable")[: round(0.01 * score.size)]] = True
    bar = np.sort(p.ravel())[round(0.95 * p.size) - 1]
    save(tmp_path / f"mask.{module.COUNTED}", np.moveaxis(chosen.reshape(score.shape)[..., None] & (p > bar), -1, 0))
    return tmp_path


def save(file: Path, mask: np.ndarray) -> None:
    """As the published files are: lists of index tensors by language and layer."""
    torch.save([[torch.tensor(np.flatnonzero(row)) for row in layers] for layers in mask], file)


def rows(module, folder: Path, name: str) -> dict[str, dict]:
    run = Run(folder / name)
    run.folder.mkdir()
    module.run(module.Config(folder=str(folder), out=str(folder)), run)
    assert len((folder / "published_masks.jsonl").read_text().splitlines()) == 1 + len(run.results())
    return {row["name"]: row for row in run.results()}


def test_masks_as_their_authors_made_them_pass(module, published):
    found = rows(module, published, "run")
    assert len(found) == 3 and all(row["equal"] for row in found.values())
    assert found["made.pth"]["union"] == found["made.pth"]["expected"] == 12
    assert [row["differing"] for row in found.values() if row["what"] == "counts"] == [0, 0]


def test_a_neuron_too_many_is_seen(module, published):
    mask = torch.load(published / "made.pth", weights_only=True)
    taken = {int(j) for language in mask for j in language[0]}
    mask[0][0] = torch.tensor(sorted({*mask[0][0].tolist(), min(set(range(NEURONS)) - taken)}))
    torch.save(mask, published / "made.pth")
    other = torch.load(published / f"mask.{module.COUNTED}", weights_only=True)
    other[0][1] = torch.tensor([0]) if 0 not in other[0][1] else other[0][1][1:]
    torch.save(other, published / f"mask.{module.COUNTED}")
    found = rows(module, published, "run")
    assert not found["made.pth"]["equal"] and found["made.pth"]["union"] == 13
    assert found["entropy-λ against the published mask"]["differing"] == 1


def test_a_folder_without_published_files_is_refused(module, tmp_path):
    with pytest.raises(PrerequisiteError, match="no published file"):
        module.run(module.Config(folder=str(tmp_path)), Run(tmp_path))
