"""Sets of features on disk, and cut to languages and sizes."""

import dataclasses
import json

import pytest
import torch
from artifact_damage import reseal

from babelscope import Site
from babelscope.artifacts import Origin
from babelscope.artifacts.feature_set import FeatureSet
from babelscope.errors import ArtifactError, LanguageError
from babelscope.languages import parse_languages


def made(**change):
    fields = {
        "origin": Origin("made", "", "aa", "bb"),
        "languages": parse_languages(["en", "fi", "ru"]),
        "site": Site(5, "resid_out"),
        "sae_id": "reference",
        "sae_hash": "0123456789abcdef",
        "n_features": 20,
        "offsets": torch.tensor([0, 3, 3, 5]),
        "indices": torch.tensor([7, 2, 19, 2, 0], dtype=torch.int32),
        "score": torch.tensor([3.0, 2.0, 2.0, 5.0, 1.0]),
        "method": "langfir",
        "parameters": {"tau": 0.5},
    }
    return FeatureSet(**{**fields, **change})


def test_features_are_best_first_and_every_language_keeps_its_key():
    sets = made()
    assert sets.as_dict() == {"en": [7, 2, 19], "fi": [], "ru": [2, 0]}
    assert sets.sizes == {"en": 3, "fi": 0, "ru": 2}
    assert sets.mask().nonzero().tolist() == [[0, 2], [0, 7], [0, 19], [2, 0], [2, 2]]


def test_cutting_to_languages_and_to_the_best():
    sets = made()
    assert sets["ru"].as_dict() == {"ru": [2, 0]}
    assert sets.only(["ru", "en"]).as_dict() == {"ru": [2, 0], "en": [7, 2, 19]}
    assert sets.top(1).as_dict() == {"en": [7], "fi": [], "ru": [2]}
    assert sets.top(9).as_dict() == sets.as_dict()
    with pytest.raises(LanguageError, match="'de' is not in this set"):
        sets.features("de")


def test_packing_a_mask_ranks_by_score_and_ties_by_the_lowest_feature():
    mask = torch.tensor([[True, True, False, True], [False, False, False, False]])
    score = torch.tensor([[1.0, 2.0, 9.0, 2.0], [1.0, 1.0, 1.0, 1.0]])
    given = {name: getattr(made(), name) for name in ("origin", "site", "sae_id", "sae_hash", "method", "parameters")}
    languages = parse_languages(["en", "fi"])
    assert FeatureSet.from_mask(mask, score, languages=languages, **given).as_dict() == {"en": [1, 3, 0], "fi": []}
    assert FeatureSet.from_mask(mask, score, cap=1, languages=languages, **given).as_dict() == {"en": [1], "fi": []}


def test_a_folder_keeps_the_set(tmp_path):
    sets = made()
    back = FeatureSet.load(sets.save(tmp_path / "set"))
    for field in dataclasses.fields(FeatureSet):
        mine, theirs = getattr(sets, field.name), getattr(back, field.name)
        assert torch.equal(mine, theirs) if isinstance(mine, torch.Tensor) else mine == theirs
    config = json.loads((tmp_path / "set" / "config.json").read_text())
    assert config["format"] == "babelscope.FeatureSet/2" and config["sae"]["hash"] == sets.sae_hash
    assert "reference" in (tmp_path / "set" / "README.md").read_text()


FAULTS = {
    "twice": {"indices": torch.tensor([7, 7, 19, 2, 0], dtype=torch.int32)},
    "not best first": {"score": torch.tensor([1.0, 2.0, 2.0, 5.0, 1.0])},
    "out of range": {"indices": torch.tensor([7, 2, 20, 2, 0], dtype=torch.int32)},
    "negative": {"indices": torch.tensor([7, 2, -1, 2, 0], dtype=torch.int32)},
    "offsets fall": {"offsets": torch.tensor([0, 3, 2, 5])},
    "offsets too short": {"offsets": torch.tensor([0, 3, 5])},
    "offsets end early": {"offsets": torch.tensor([0, 3, 3, 4])},
}


@pytest.mark.parametrize("change", FAULTS.values(), ids=FAULTS)
def test_a_damaged_set_is_refused(change):
    with pytest.raises(ArtifactError, match="expected"):
        made(**change)


def test_a_folder_of_another_kind_or_with_a_missing_part_is_refused(tmp_path):
    path = made().save(tmp_path / "set")
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, "format": "babelscope.NeuronSet/1"}))
    with pytest.raises(ArtifactError, match="NeuronSet"):
        FeatureSet.load(path)
    del config["sae"]
    (path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ArtifactError, match="'sae'"):
        FeatureSet.load(reseal(path))
