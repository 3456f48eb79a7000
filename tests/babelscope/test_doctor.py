"""The doctor tries what the library does, says which of it fails, and exits 1 where something does."""

import json

import pytest
import torch

from babelscope import open_model
from babelscope.cli import main
from babelscope.cli.doctor_checks import CHECKS, outcome
from babelscope.upstream.forward import ForwardInputs


@pytest.fixture(scope="module")
def opened():
    return open_model("reference", device="cpu")


@pytest.mark.parametrize("name", CHECKS)
def test_everything_passes_here(name, opened):
    assert outcome(CHECKS[name], *opened) == "passed"


def test_the_report_has_a_key_for_each(capsys):
    assert main(["doctor", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert [result[name] for name in ("observe", "steering", "training", "self_test")] == ["passed"] * 4


@pytest.mark.parametrize("stopped", [True, False], ids=["guard", "no guard"])
def test_a_cache_that_is_not_seen_fails_the_steering(stopped, capsys, monkeypatch):
    """As transformers 5.24 was read before: every generated token was taken for a prompt."""
    monkeypatch.setattr(ForwardInputs, "cached", property(lambda self: 0))
    if not stopped:
        monkeypatch.setattr("babelscope.steering.columns.Columns.check", lambda *_: None)
    assert main(["doctor", "--json"]) == 1
    result = json.loads(capsys.readouterr().out)
    assert result["observe"] == result["training"] == "passed"
    assert result["steering"].startswith("FAILED: ") and result["self_test"] == "FAILED: steering"
    assert ("while generating" in result["steering"]) is stopped


def test_counts_of_another_place_fail_the_observation(opened, monkeypatch):
    real = torch.gt
    monkeypatch.setattr(torch, "gt", lambda left, right, **rest: real(left, right + 0.1, **rest))
    assert "counts of layer 0 are not those of a plain hook" in outcome(CHECKS["observe"], *opened)


def test_training_that_leaves_the_model_changed_fails(opened, monkeypatch):
    hashes = iter("ab")
    monkeypatch.setattr("babelscope.cli.doctor_checks.weights_hash", lambda model: next(hashes))
    assert outcome(CHECKS["training"], *opened) == "FAILED: MeasurementError: training left the model changed"
