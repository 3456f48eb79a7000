"""A direction makes operations, and comes back from disk bit for bit."""

import json
from dataclasses import replace

import pytest
import torch
from artifact_damage import reseal

from babelscope import Direction, Gate, Language, Schedule, Site
from babelscope.artifacts import Origin
from babelscope.errors import ArtifactError, LanguageError

ORIGIN = Origin("tiny", "", "model-hash", "tokenizer-hash")


def direction(**changes):
    whole = {
        "vector": torch.tensor([3.0, -0.0, 4.0]),
        "site": Site(2, "resid_out"),
        "target": "fi",
        "source": ("en", "zh-hant"),
        "mean_norm": 0.1 + 0.2,
        "origin": ORIGIN,
        "parameters": {"method": "by hand", "tokens": {"fi": 3}},
    }
    return Direction(**{**whole, **changes})


def test_a_direction_comes_back_bit_for_bit(tmp_path):
    before = direction()
    after = Direction.load(before.save(tmp_path / "direction"))
    assert torch.equal(before.vector.view(torch.int32), after.vector.view(torch.int32))
    for name in ("site", "target", "source", "mean_norm", "origin", "parameters"):
        assert getattr(before, name) == getattr(after, name), name
    assert (tmp_path / "direction" / "README.md").read_text().startswith("---\nlibrary_name: babelscope")


def test_tags_are_parsed():
    assert direction().source == (Language("en"), Language("zh-Hant"))
    with pytest.raises(LanguageError):
        direction(target="not a language")


def test_a_raw_vector_is_enough():
    bare = Direction(torch.ones(3), Site(0, "mlp_out"), "fi", (), 2.0, ORIGIN)
    assert (bare.norm, dict(bare.parameters)) == (pytest.approx(3**0.5), {})
    assert replace(direction(), vector=torch.ones(3)).norm == bare.norm


def test_add_carries_site_scale_gate_and_origin():
    gate, schedule = Gate("generated"), Schedule.first(3)
    operation = direction().add(strength=0.25, unit="relative", gate=gate, schedule=schedule)
    assert (operation.site, operation.kind, operation.strength) == (Site(2, "resid_out"), "add", 0.25)
    assert (operation.gate, operation.schedule, operation.origin) == (gate, schedule, ORIGIN)
    assert operation.scale * 5.0 == pytest.approx(0.3)
    assert direction().add().unit == "relative"
    assert direction().add(2, "unit").scale == pytest.approx(0.2)
    assert direction().project_out(0.5, gate=gate).kind == "project_out"


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"vector": torch.tensor([1.0, torch.nan])}, "finite"),
        ({"vector": torch.tensor([1.0, torch.inf])}, "finite"),
        ({"vector": torch.zeros(3)}, "zero"),
        ({"mean_norm": 0.0}, "mean_norm"),
        ({"mean_norm": float("nan")}, "mean_norm"),
    ],
)
def test_what_is_no_direction_is_refused(changes, word):
    with pytest.raises(ArtifactError, match=word):
        direction(**changes)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda config: config.update(site="2.nowhere"), "nowhere"),
        (lambda config: config.update(mean_norm=-1.0), "mean_norm"),
        (lambda config: config.pop("target"), "target"),
        (lambda config: config.pop("origin"), "origin"),
        (lambda config: config.update(format="babelscope.Direction/3"), "format"),
    ],
)
def test_a_damaged_direction_is_refused_in_one_line(tmp_path, change, word):
    path = direction().save(tmp_path / "direction")
    config = json.loads((path / "config.json").read_text())
    change(config)
    (path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ArtifactError, match=word) as caught:
        Direction.load(reseal(path))
    assert "\n" not in str(caught.value)
