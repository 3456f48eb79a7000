"""Operations refuse what cannot be applied; recipes come back from disk bit for bit."""

import json
import re
from dataclasses import replace

import pytest
import torch
from artifact_damage import as_before_hashes, reseal
from conftest import tiny_model
from safetensors.torch import load_file

from babelscope import Gate, Operation, Schedule, Site, SteeringRecipe, read_site, steer
from babelscope.artifacts import Condition, FeatureMap, Origin
from babelscope.errors import ArtifactError, SteeringError

ORIGIN = Origin("tiny", "", "model-hash", "tokenizer-hash")
OTHER = Origin("other", "", "another-hash", "tokenizer-hash")
V = torch.tensor([0.1, -2.0, 3.3e-7])


def recipe():
    gate = Gate("prompt", positions=(-3, None), rows=(0, 2), skip_special=True)
    return SteeringRecipe(
        operations=(
            Operation(Site(1, "resid_out"), "add", V, strength=0.1 + 0.2, unit="relative", mean_norm=1 / 3, gate=gate),
            Operation(Site(1, "resid_out"), "project_out", V, strength=-1, schedule=Schedule.ramp(7, start=0.5)),
            Operation(Site(0, "mlp_gate"), "replace", V, indices=torch.tensor([5, 0, 40])),
            Operation(Site(None, "embed"), "scale", V, gate=Gate("generated"), schedule=Schedule.every(3)),
        ),
        origin=ORIGIN,
        parameters={"method": "by hand"},
    )


def test_a_recipe_comes_back_bit_for_bit(tmp_path):
    before = recipe()
    after = SteeringRecipe.load(before.save(tmp_path / "recipe"))
    assert (after.origin, after.parameters, len(after)) == (before.origin, before.parameters, 4)
    for old, new in zip(before, after, strict=True):
        assert torch.equal(old.vector.view(torch.int32), new.vector.view(torch.int32))
        assert (old.indices is None) == (new.indices is None)
        assert old.indices is None or torch.equal(old.indices, new.indices)
        for name in ("site", "kind", "strength", "unit", "mean_norm", "gate", "schedule"):
            assert getattr(old, name) == getattr(new, name), name
        assert new.origin == ORIGIN


def test_a_condition_comes_back_with_every_word_of_it(tmp_path):
    asked = Condition(Site(2, "mlp_out"), V, -0.25, above=False, pool="last")
    operation = Operation(Site(1, "resid_out"), "add", V, gate=Gate("generated", condition=asked))
    (back,) = SteeringRecipe.load(SteeringRecipe((operation,), ORIGIN).save(tmp_path / "recipe"))
    found = back.gate.condition
    assert (found.site, found.threshold, found.above, found.pool) == (Site(2, "mlp_out"), -0.25, False, "last")
    assert torch.equal(found.vector, V) and replace(back.gate, condition=None) == Gate("generated")


def test_equal_recipes_are_equal_files(tmp_path):
    one, two = recipe().save(tmp_path / "one"), recipe().save(tmp_path / "two")
    assert sorted(file.name for file in one.iterdir()) == ["README.md", "config.json", "tensors.safetensors"]
    for file in one.iterdir():
        assert file.read_bytes() == (two / file.name).read_bytes()


def test_recipes_compose_in_order():
    both = recipe() + SteeringRecipe(operations=(Operation(Site(2, "mlp_out"), "add", V),), origin=ORIGIN)
    assert [str(operation.site) for operation in both] == [
        "1.resid_out",
        "1.resid_out",
        "0.mlp_gate",
        "embed",
        "2.mlp_out",
    ]


def test_recipes_of_two_models_do_not_mix():
    foreign = Operation(Site(2, "mlp_out"), "add", V, origin=OTHER)
    with pytest.raises(ArtifactError, match="another-hash"):
        SteeringRecipe(operations=(foreign,), origin=ORIGIN)
    with pytest.raises(ArtifactError, match="another-hash"):
        recipe() + SteeringRecipe(operations=(foreign,), origin=OTHER)


def test_an_empty_recipe_is_refused():
    with pytest.raises(ArtifactError, match="without operations"):
        SteeringRecipe(operations=(), origin=ORIGIN)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda config: config["operations"][0].update(kind="explode"), "explode"),
        (lambda config: config["operations"][0].update(site="resid_out"), "layer"),
        (lambda config: config["operations"][0].pop("gate"), "gate"),
        (lambda config: config["operations"][0]["gate"].update(phase="later"), "later"),
        (lambda config: config["operations"][0]["gate"].update(novel=1), "novel"),
        (lambda config: config["operations"][0]["gate"].update(positions="ab"), "positions is"),
        (lambda config: config["operations"][0]["gate"].update(positions=[0, 1, 2]), "no list of 2"),
        (lambda config: config["operations"][0]["gate"].update(rows=[0.5]), "whole number"),
        (lambda config: config["operations"][0].update(mean_norm=None), "mean_norm"),
        (lambda config: config["operations"][1]["schedule"].update(steps=0), "schedule"),
        (lambda config: config["operations"][3]["tensors"].update(vector="4.vector"), "4.vector"),
        (lambda config: config.update(format="babelscope.Direction/1"), "Direction"),
        (lambda config: config.pop("operations"), "operations"),
    ],
)
def test_a_damaged_recipe_is_refused_in_one_line(tmp_path, change, word):
    path = recipe().save(tmp_path / "recipe")
    config = json.loads((path / "config.json").read_text())
    change(config)
    (path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ArtifactError, match=word) as caught:
        SteeringRecipe.load(reseal(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"vector": V * torch.nan}, "NaN"),
        ({"vector": torch.tensor([torch.inf])}, "infinity"),
        ({"vector": V[:0]}, "one float32 row"),
        ({"vector": torch.zeros(3), "unit": "unit"}, "no direction"),
        ({"vector": torch.zeros(3), "kind": "project_out"}, "no direction"),
        ({"strength": float("nan")}, "finite"),
        ({"strength": float("inf")}, "finite"),
        ({"strength": -1e300}, "finite"),
        ({"unit": "relative"}, "mean_norm"),
        ({"unit": "relative", "mean_norm": 0.0}, "mean_norm"),
        ({"unit": "unit", "kind": "scale"}, "only 'add'"),
        ({"indices": torch.tensor([1, 2])}, "one value each"),
        ({"indices": torch.tensor([1, 1, 2])}, "twice"),
        ({"indices": torch.tensor([-1, 1, 2])}, "negative"),
        ({"indices": torch.tensor([0, 1, 2]), "kind": "project_out"}, "whole direction"),
    ],
)
def test_what_can_not_be_applied_is_refused(arguments, word):
    with pytest.raises(ArtifactError, match=word):
        Operation(**{"site": Site(1, "resid_out"), "kind": "add", "vector": V, **arguments})


def test_a_kind_is_one_entry_that_is_checked_saved_and_steers(tmp_path):
    """A kind that the library does not have, made here by its entry alone."""
    from babelscope.interventions import KINDS, kind

    def mirror(value, vector, strength):
        return value - strength * 2 * (value - vector)

    kind(whole=True, only_at="resid_out")(mirror)
    try:
        site, vector = Site(1, "resid_out"), torch.ones(32)
        saved = SteeringRecipe((Operation(site, "mirror", vector, 0.5),), Origin("", "", "", "")).save(
            tmp_path / "recipe"
        )
        model, ids = tiny_model("llama"), torch.tensor([[1, 5, 9]])
        with steer(model, SteeringRecipe.load(saved)):
            halfway = read_site(model, ids, site)
        torch.testing.assert_close(halfway, torch.ones(1, 3, 32))
        with pytest.raises(SteeringError, match="it acts at a resid_out alone"):
            Operation(Site(1, "mlp_out"), "mirror", vector)
        with pytest.raises(SteeringError, match="whole direction"):
            Operation(site, "mirror", vector, indices=torch.arange(32))
    finally:
        del KINDS["mirror"]
    with pytest.raises(SteeringError, match="operation 'mirror' is unknown; expected one of add, replace"):
        Operation(site, "mirror", vector)


EYE = torch.eye(3)
MAP = FeatureMap(torch.ones(2, 3), torch.zeros(2), torch.zeros(2), torch.ones(1, 3), torch.tensor([1]))


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"kind": "subspace"}, "matrix"),
        ({"kind": "add", "matrix": EYE}, "nothing else"),
        ({"kind": "subspace", "matrix": torch.ones(2, 3)}, "orthonormal"),
        ({"kind": "affine", "matrix": EYE[:2]}, "[3, 3]"),
        ({"kind": "affine", "matrix": EYE * torch.nan}, "finite"),
        ({"kind": "clamp_features"}, "features"),
        ({"kind": "clamp_features", "features": MAP}, "3 values came for 1"),
        ({"kind": "scale_features", "features": MAP, "vector": torch.tensor([torch.nan])}, "NaN"),
        ({"kind": "promote"}, "router"),
        ({"clean": True}, "prompt"),
        ({"clean": True, "gate": Gate("prompt"), "indices": torch.tensor([0, 1, 2])}, "prompt"),
    ],
)
def test_matrices_features_and_places_that_do_not_fit_are_refused(arguments, word):
    with pytest.raises(SteeringError, match=re.escape(word)) as caught:
        Operation(**{"site": Site(1, "resid_out"), "kind": "add", "vector": V, **arguments})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"encoder": torch.full((2, 3), torch.nan)}, "finite"),
        ({"threshold": torch.tensor([0.0, -1.0])}, "below 0"),
        ({"chosen": torch.tensor([2])}, "outside 0–1"),
        ({"top_k": 3}, "1–2"),
    ],
)
def test_features_of_another_size_are_refused(change, word):
    with pytest.raises(SteeringError, match=word):
        replace(MAP, **change)


def test_a_condition_without_direction_or_threshold_is_refused():
    for arguments in ((V * 0, 0.0), (V * torch.nan, 0.0), (V, float("nan"))):
        with pytest.raises(SteeringError, match="finite"):
            Condition(Site(1, "resid_out"), *arguments)


def test_a_card_names_method_and_source(tmp_path):
    one = SteeringRecipe(
        (Operation(Site(1, "resid_out"), "add", V),), ORIGIN, {"method": "by hand", "source": "page 3"}
    )
    other = replace(one, parameters={"method": "by foot", "source": "page 9"})
    card = ((one + other).save(tmp_path / "recipe") / "README.md").read_text()
    assert [line for line in card.splitlines() if line.startswith(("Method", "Source"))] == [
        "Method: by hand.",
        "Source: page 3.",
        "Method: by foot.",
        "Source: page 9.",
    ]


def test_a_shared_matrix_is_stored_once(tmp_path):
    operations = tuple(Operation(Site(layer, "resid_out"), "subspace", V, matrix=EYE[:2]) for layer in (0, 1))
    shared = tuple(replace(operation, matrix=operations[0].matrix) for operation in operations)
    path = SteeringRecipe(shared, ORIGIN).save(tmp_path / "recipe")
    assert sorted(load_file(path / "tensors.safetensors")) == ["0.matrix", "0.vector"]
    assert all(torch.equal(operation.matrix, EYE[:2]) for operation in SteeringRecipe.load(path))


def test_a_folder_written_before_tensors_were_shared_is_read(tmp_path):
    path = SteeringRecipe(
        (Operation(Site(0, "mlp_gate"), "replace", V, indices=torch.tensor([5, 0, 4])),), ORIGIN
    ).save(tmp_path / "recipe")
    config = json.loads((path / "config.json").read_text())
    for name in ("tensors", "clean", "top_k"):
        del config["operations"][0][name]
    del config["operations"][0]["gate"]["condition"]
    (path / "config.json").write_text(json.dumps(config))
    (operation,) = SteeringRecipe.load(as_before_hashes(path))
    assert torch.equal(operation.vector, V) and operation.indices.tolist() == [5, 0, 4]


def test_gates_and_schedules_are_checked():
    for rows in ((), (-1,)):
        with pytest.raises(ArtifactError, match="rows"):
            Gate(rows=rows)
    with pytest.raises(ArtifactError, match="at least 1 step"):
        Schedule.first(0)


def test_units_by_hand():
    operation = {"site": Site(1, "resid_out"), "kind": "add", "vector": torch.tensor([3.0, 4.0])}
    assert Operation(**operation).scale == 1.0
    assert Operation(**operation, unit="unit").scale == pytest.approx(1 / 5)
    assert Operation(**operation, unit="relative", mean_norm=20.0).scale == pytest.approx(4.0)


def test_schedules_by_hand():
    def factors(schedule):
        return [schedule.factor(step) for step in range(6)]

    assert factors(Schedule()) == [1.0] * 6
    assert factors(Schedule.first(2)) == [1.0, 1.0, 0.0, 0.0, 0.0, 0.0]
    assert factors(Schedule.every(2)) == [1.0, 0.0, 1.0, 0.0, 1.0, 0.0]
    assert factors(Schedule.ramp(4)) == [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
    assert factors(Schedule.ramp(2, start=0.0, end=3.0)) == [0.0, 1.5, 3.0, 3.0, 3.0, 3.0]
