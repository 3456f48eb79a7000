"""The verb `features`, called as the command line calls it."""

import json

import pytest

from babelscope.artifacts.feature_observation import FeatureObservation
from babelscope.artifacts.feature_set import FeatureSet
from babelscope.cli.featuring import run_features
from babelscope.errors import ArtifactError, PrerequisiteError, SelectionError

SMALL = {"languages": ("en", "fi"), "tokens_per_language": 300, "random_sequences": 4, "min_count": 5, "draws": 5}


def test_features_writes_the_observation_the_sets_and_their_evidence(tmp_path):
    out = tmp_path / "run"
    result = run_features("reference", "reference", "reference", out=out, tau=0.3, cap=3, parallel=True, **SMALL)
    sets, observed = FeatureSet.load(out / "features"), FeatureObservation.load(out / "observation")
    assert result["features"] == sets.as_dict() and set(sets.sizes.values()) == {3}
    assert observed.sae_hash == sets.sae_hash and observed.counts.tokens == {"en": 300, "fi": 300}
    rows = [json.loads(line) for line in (out / "evidence.jsonl").read_text().splitlines()]
    assert {row["claim"] for row in rows} == {"set size", "stability", "share with q <= .05"}
    assert not (tmp_path / "run.checkpoint").exists()
    with pytest.raises(ArtifactError, match="already there"):
        run_features("reference", "reference", "reference", out=out, **SMALL)


def test_features_that_select_nothing_or_name_no_autoencoder_leave_nothing_behind(tmp_path):
    with pytest.raises(SelectionError, match="selects nothing"):
        run_features("reference", "reference", "reference", out=tmp_path / "a", **{**SMALL, "min_count": 10**6})
    with pytest.raises(ArtifactError, match="expected 'reference', a sae-lens folder"):
        run_features("reference", str(tmp_path / "no"), "reference", out=tmp_path / "b", **SMALL)
    with pytest.raises(PrerequisiteError, match="model 'nowhere'"):
        run_features("nowhere", "reference", "reference", out=tmp_path / "c", **SMALL)
    assert not any((tmp_path / name).exists() for name in "abc")
