"""Means of a hand-built Observation become directions and neuron arithmetic with hand-computed numbers."""

from dataclasses import replace

import pytest
import torch
from conftest import tiny_model, tiny_tokenizer
from feature_cases import made_sae

from babelscope import (
    Language,
    NeuronSet,
    Observation,
    Site,
    SteeringRecipe,
    activate_neurons,
    clamp_features,
    language_arithmetic,
    layout_of,
    mean_direction,
    origin_of,
    read_site,
    scale_features,
    scale_neurons,
    set_neurons,
    steer,
)
from babelscope.artifacts import Gate, Origin, Schedule, SiteRecord
from babelscope.errors import ArtifactError, LanguageError, MeasurementError, SelectionError, SiteError, SteeringError
from babelscope.steering.directions import language_mean

ORIGIN = Origin("tiny", "", "model-hash", "tokenizer-hash")
TAGS = tuple(Language(tag) for tag in ("en", "fi", "eu"))


def record(total, norm=None, routed=None, layers=(0, 1)):
    total = torch.tensor(total, dtype=torch.float64)
    zeros = torch.zeros_like(total)
    norm = torch.zeros(total.shape[0], total.shape[2]) if norm is None else torch.tensor(norm)
    return SiteRecord(
        layers=layers,
        active=zeros.long(),
        sum=total,
        sumsq=zeros,
        norm=norm.double(),
        shard_active=torch.zeros(0, *total.shape, dtype=torch.int32),
        routed=None if routed is None else torch.tensor(routed),
    )


def observation(records, tokens=(4, 2, 8), origin=ORIGIN):
    none = torch.zeros(len(tokens), dtype=torch.int64)
    return Observation(
        origin=origin,
        languages=TAGS,
        records=records,
        token_counts=torch.tensor(tokens),
        shard_tokens=torch.zeros(0, len(tokens), dtype=torch.int64),
        documents=none,
        truncated=none,
        parts=("corpus:0/1",),
        settings={},
    )


# Sums at layers 3 and 5 of two units for en (4 tokens), fi (2) and eu (8); means at layer 5: (2, 1), (3, -1), (1, 0.5).
RESID = record(
    [[[9.0, 9.0, 9.0], [9.0, 9.0, 9.0]], [[8.0, 6.0, 8.0], [4.0, -2.0, 4.0]]],
    norm=[[1.0, 1.0, 1.0], [12.0, 12.0, 4.0]],
    layers=(3, 5),
)
OBS = observation({"resid_out": RESID})


def test_a_direction_is_the_difference_of_two_means():
    v = mean_direction(OBS, target="fi", source="en", layer=5)
    assert v.vector.tolist() == [1.0, -2.0]
    assert v.vector.dtype == torch.float32
    # Norms 12 + 12 over 2 + 4 tokens.
    assert v.mean_norm == 4.0
    assert (v.site, v.target, v.source, v.origin) == (Site(5, "resid_out"), "fi", ("en",), ORIGIN)
    assert v.parameters["tokens"] == {"fi": 2, "en": 4}


def test_against_several_languages_each_counts_alike():
    everyone = mean_direction(OBS, target="fi", layer=5)
    assert everyone.vector.tolist() == [1.5, -1.75]
    assert everyone.source == ("en", "eu")
    assert everyone.mean_norm == pytest.approx(28 / 14)
    named = mean_direction(OBS, target="fi", source=["eu", "en"], layer=5)
    assert torch.equal(named.vector, everyone.vector)


def test_there_and_back_are_opposite():
    there, back = (mean_direction(OBS, target=a, source=b, layer=5) for a, b in (("fi", "en"), ("en", "fi")))
    assert torch.equal(there.vector, -back.vector)


def test_differences_are_made_in_float64():
    large = 1e8
    obs = observation({"resid_out": record([[[large * 4, (large + 1) * 2, 0.0]]], norm=[[1.0] * 3], layers=(0,))})
    assert mean_direction(obs, target="fi", source="en", layer=0).vector.tolist() == [1.0]


def test_what_has_no_direction_is_refused():
    with pytest.raises(LanguageError, match="fi"):
        mean_direction(OBS, target="fi", source=["en", "fi"], layer=5)
    with pytest.raises(LanguageError, match="not observed"):
        mean_direction(OBS, target="de", source="en", layer=5)
    with pytest.raises(SiteError, match="expected a layer"):
        mean_direction(OBS, target="fi", source="en", layer=4)
    with pytest.raises(SiteError, match="not observed"):
        mean_direction(OBS, target="fi", source="en", layer=5, at="mlp_out")
    with pytest.raises(MeasurementError, match="no token"):
        mean_direction(observation({"resid_out": RESID}, (4, 0, 8)), target="fi", source="en", layer=5)
    with pytest.raises(ArtifactError, match="zero"):
        same = record([[[4.0, 2.0, 8.0]]], norm=[[1.0] * 3], layers=(0,))
        mean_direction(observation({"resid_out": same}), target="fi", source="en", layer=0)


def test_an_experts_mean_is_over_the_tokens_it_met():
    # Two experts of two neurons; en met expert 0 twice and expert 1 four times.
    obs = observation(
        {
            "mlp_gate": record(
                [[[2.0] * 3, [4.0] * 3, [8.0] * 3, [2.0] * 3]], routed=[[[2, 1, 1], [4, 0, 1]]], layers=(0,)
            )
        }
    )
    assert language_mean(obs, "en", Site(0, "mlp_gate")).tolist() == [1.0, 2.0, 2.0, 0.5]
    with pytest.raises(MeasurementError, match="expert"):
        language_mean(obs, "fi", Site(0, "mlp_gate"))
    with pytest.raises(SiteError, match="some experts"):
        mean_direction(obs, target="eu", source="en", layer=0, at="mlp_gate")


def sets_of(mask, origin=ORIGIN, at="mlp_gate"):
    whole = torch.zeros(mask.shape)
    return NeuronSet.from_mask(mask, whole, origin=origin, languages=TAGS, at=at, method="by hand", parameters={})


MASK = torch.zeros(3, 2, 4, dtype=torch.bool)
MASK[0, 0, [1, 2]] = True
MASK[1, 0, [2]] = True
MASK[1, 1, [0, 3]] = True
SETS = sets_of(MASK)
GATE_OBS = observation(
    {"mlp_gate": record([[[4.0 * unit, 20.0 * unit, 16.0] for unit in range(4)] for _ in range(2)])}
)  # means: en 0 1 2 3, fi 0 10 20 30, eu 2 2 2 2


def plain(operations):
    return [(str(op.site), op.kind, op.indices.tolist(), op.vector.tolist(), op.strength) for op in operations]


def test_neuron_arithmetic_by_hand():
    assert plain(set_neurons(SETS, "en", -1.0)) == [("0.mlp_gate", "replace", [1, 2], [-1.0, -1.0], 1.0)]
    assert plain(scale_neurons(SETS, "en", 0.5)) == [("0.mlp_gate", "scale", [1, 2], [0.5, 0.5], 1.0)]
    assert plain(activate_neurons(SETS, GATE_OBS, "fi", strength=2)) == [
        ("0.mlp_gate", "add", [2], [20.0], 2),
        ("1.mlp_gate", "add", [0, 3], [0.0, 30.0], 2),
    ]
    assert plain(activate_neurons(SETS, GATE_OBS, "fi", "replace"))[1][1:4] == ("replace", [0, 3], [0.0, 30.0])
    by_difference = plain(activate_neurons(SETS, GATE_OBS, "fi", "difference"))
    assert by_difference[1][1:4] == ("add", [0, 3], [-1.0, 27.5])
    against_en = plain(activate_neurons(SETS, GATE_OBS, "fi", "difference", source="en"))
    assert against_en[1][1:4] == ("add", [0, 3], [0.0, 27.0])


def test_the_source_is_switched_off_before_the_target_is_switched_on():
    assert [row[:3] for row in plain(language_arithmetic(SETS, GATE_OBS, target="fi", source="en"))] == [
        ("0.mlp_gate", "replace", [1, 2]),
        ("0.mlp_gate", "add", [2]),
        ("1.mlp_gate", "add", [0, 3]),
    ]


def test_several_sources_are_off_together_and_the_target_is_added():
    recipe = language_arithmetic(SETS, GATE_OBS, target="fi", source=["en"])
    assert plain(recipe) == plain(language_arithmetic(SETS, GATE_OBS, target="fi", source="en"))
    assert recipe.parameters["from"] == ["en"]
    with pytest.raises(LanguageError, match="no language came"):
        language_arithmetic(SETS, GATE_OBS, target="fi", source=[])


def test_arithmetic_without_neurons_or_with_strangers_is_refused():
    with pytest.raises(SelectionError, match="eu"):
        set_neurons(SETS, "eu")
    foreign = observation(dict(GATE_OBS.records), origin=Origin("other", "", "another-hash", "tokenizer-hash"))
    with pytest.raises(ArtifactError, match="another-hash"):
        activate_neurons(SETS, foreign, "fi")


def card_of(recipe, path):
    return (recipe.save(path) / "README.md").read_text()


def test_neuron_arithmetic_can_be_saved_and_names_its_source(tmp_path):
    recipe = language_arithmetic(SETS, GATE_OBS, target="fi", source="en", by="difference", strength=2, fill=-1)
    assert recipe.origin == SETS.origin
    card = card_of(recipe, tmp_path / "recipe")
    assert "Method: neuron arithmetic, difference." in card and "Source: arXiv:2507.22608." in card
    assert plain(SteeringRecipe.load(tmp_path / "recipe")) == plain(recipe)


def test_an_edit_of_features_as_a_recipe_is_bound_to_its_model(tmp_path):
    sae = replace(made_sae(), model_hash=ORIGIN.model_hash, model="tiny")
    for edit, value, word in ((clamp_features, 2.0, "clamped"), (scale_features, 0.0, "scaled")):
        recipe = edit(sae, {3: value}, origin=ORIGIN)
        card = card_of(recipe, tmp_path / word)
        assert f"Method: features {word}." in card and "Source: arXiv:2507.13410." in card
        assert recipe.operations[0].origin == ORIGIN and recipe.parameters["sae"]["hash"] == sae.hash
        with pytest.raises(ArtifactError, match="open the one it was made with"), steer(tiny_model("llama"), recipe):
            pass
        assert edit(sae, {3: value}).operations[0].origin is None
    with pytest.raises(SteeringError, match="expected one model"):
        clamp_features(replace(sae, model_hash="another"), {3: 2.0}, origin=ORIGIN)


def test_a_recipe_takes_another_strength_gate_or_schedule_for_all_its_operations():
    recipe = language_arithmetic(SETS, GATE_OBS, target="fi", source="en", strength=2)
    assert [op.strength for op in recipe] == [1, 2, 2]
    gate, fade = Gate("prompt", positions=(-1, None)), Schedule.first(4)
    other = recipe.with_(strength=0.5, gate=gate, schedule=fade)
    assert [(op.strength, op.gate, op.schedule) for op in other] == [(0.5, gate, fade)] * 3
    assert [(op.strength, op.gate) for op in recipe.with_(schedule=fade)] == [(op.strength, op.gate) for op in recipe]
    assert [op.strength for op in recipe.with_(strength=0)] == [0, 0, 0], "0 is a strength, not a missing word"
    assert other.origin == recipe.origin and other.parameters == recipe.parameters
    assert [op.strength for op in recipe] == [1, 2, 2], "the recipe itself stays"


@pytest.fixture
def dense(ids):
    """A llama, its sets and its observation: en owns neurons 3 and 7 of layer 1, fi 7 and 9."""
    model = tiny_model("llama")
    origin = origin_of(model, tiny_tokenizer())
    mask = torch.zeros(3, 3, 48, dtype=torch.bool)
    mask[0, 1, [3, 7]] = True
    mask[1, 1, [7, 9]] = True
    total = torch.arange(48.0)[None, :, None].expand(3, 48, 3) * torch.tensor([4.0, 2.0, 8.0])
    return (
        model,
        sets_of(mask, origin),
        observation({"mlp_gate": record(total.tolist(), layers=(0, 1, 2))}, origin=origin),
    )


def test_a_neuron_of_both_languages_ends_at_fill_plus_its_mean(dense, ids):
    model, sets, obs = dense
    before = read_site(model, ids, Site(1, "mlp_gate"))
    with steer(model, language_arithmetic(sets, obs, target="fi", source="en", fill=-2.0, strength=0.5)):
        after = read_site(model, ids, Site(1, "mlp_gate"))
    assert torch.equal(after[..., 3], torch.full((3, 7), -2.0))
    assert torch.equal(after[..., 7], torch.full((3, 7), -2.0 + 0.5 * 7))
    torch.testing.assert_close(after[..., 9], before[..., 9] + 0.5 * 9)
    others = [unit for unit in range(48) if unit not in (3, 7, 9)]
    assert torch.equal(after[..., others], before[..., others])


def test_replacing_twice_is_replacing_once(dense, ids):
    model, sets, obs = dense
    once = activate_neurons(sets, obs, "fi", "replace")
    with steer(model, once):
        expected = model(input_ids=ids).logits
    with steer(model, [*once, *once]):
        assert torch.equal(model(input_ids=ids).logits, expected)
    assert not torch.allclose(model(input_ids=ids).logits, expected)


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "gpt2", "mixtral"])
def test_holding_neurons_at_zero_is_zeroing_their_columns(family, ids):
    model = tiny_model(family)
    layout = layout_of(model)
    width = layout.width("mlp_gate")
    mask = torch.zeros(3, 3, width, dtype=torch.bool)
    mask[0, :, torch.randperm(width, generator=torch.Generator().manual_seed(0))[: width // 3]] = True
    before = model(input_ids=ids).logits
    with steer(model, set_neurons(sets_of(mask, origin_of(model, tiny_tokenizer())), "en")):
        held = model(input_ids=ids).logits
    with torch.no_grad():
        for layer in range(3):
            if family == "mixtral":
                experts = layout.layer(layer).mlp.experts.down_proj
                experts.masked_fill_(mask[0, layer].view(4, 1, -1), 0)
            elif family == "gpt2":
                layout.layer(layer).mlp.c_proj.weight[mask[0, layer]] = 0
            else:
                layout.layer(layer).mlp.down_proj.weight[:, mask[0, layer]] = 0
    torch.testing.assert_close(held, model(input_ids=ids).logits, rtol=0, atol=1e-5)
    assert not torch.allclose(held, before, rtol=0, atol=0.1)
