import json
import struct

import pytest
import torch
from conftest import tiny_model

from babelscope import NeuronSet, Observation, observe
from babelscope.artifacts import Origin
from babelscope.errors import ArtifactError, PrerequisiteError
from babelscope.languages import parse_languages

TEXTS = {"en": ["the cat sat", "on a mat"], "fi": ["kissa istui", "matolla", "hiljaa"]}


@pytest.fixture
def observation(tokenizer):
    return observe(tiny_model("llama"), tokenizer, TEXTS, sites=["mlp_gate", "mlp_inner", "1.resid_out"], shards=4)


def neuron_set(mask=None):
    mask = torch.rand(2, 3, 48, generator=torch.Generator().manual_seed(0)) < 0.1 if mask is None else mask
    return NeuronSet.from_mask(
        mask,
        torch.arange(mask.numel()).view(mask.shape).float(),
        origin=Origin("m", "", "a", "b"),
        languages=parse_languages(["en", "fi"]),
        at="mlp_gate",
        method="test",
        parameters={"top_rate": 0.1},
    )


def equal(a, b):
    return all(torch.equal(x, y) for x, y in zip(tensors(a), tensors(b), strict=True))


def tensors(observation):
    yield from (observation.token_counts, observation.shard_tokens, observation.documents, observation.truncated)
    for record in observation.records.values():
        yield from (record.active, record.sum, record.sumsq, record.norm, record.shard_active)


def test_an_observation_comes_back_bit_for_bit(observation, tmp_path):
    loaded = Observation.load(observation.save(tmp_path / "obs"))
    assert equal(observation, loaded)
    assert (loaded.languages, loaded.parts, loaded.origin) == (
        observation.languages,
        observation.parts,
        observation.origin,
    )
    assert torch.equal(loaded["mlp_inner"].weight_norm, observation["mlp_inner"].weight_norm)
    assert loaded["resid_out"].layers == (1,)


def test_equal_content_is_equal_bytes(observation, tmp_path):
    files = [observation.save(tmp_path / name) / "tensors.safetensors" for name in ("a", "b")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_set_comes_back_and_every_language_keeps_its_key(tmp_path):
    mask = torch.zeros(2, 3, 48, dtype=torch.bool)
    mask[0, 1, 7] = mask[0, 2, 3] = True
    loaded = NeuronSet.load(neuron_set(mask).save(tmp_path / "set"))
    assert loaded.as_dict() == {"en": [(1, 7), (2, 3)], "fi": []}
    assert torch.equal(loaded.mask(), mask)
    assert loaded.score.tolist() == [55.0, 99.0]
    assert loaded["fi"].sizes == {"fi": 0} and loaded["en"].as_dict() == {"en": [(1, 7), (2, 3)]}


def test_some_languages_in_another_order():
    sets = neuron_set()
    turned = sets.only(["fi", "en"])
    assert turned.languages == ("fi", "en") and torch.equal(turned.mask(), sets.mask().flip(0))
    assert turned["en"].score.tolist() == sets["en"].score.tolist()


def test_mask_and_rows_agree():
    sets = neuron_set()
    assert torch.equal(NeuronSet.from_mask(sets.mask(), sets.mask().float(), **rest(sets)).indices, sets.indices)
    assert sets.layer_counts.tolist() == sets.mask().sum(dim=2).tolist()


def rest(sets):
    names = ("origin", "languages", "at", "method", "parameters")
    return {name: getattr(sets, name) for name in names}


def test_a_taken_path_is_refused_and_left_alone(observation, tmp_path):
    path = observation.save(tmp_path / "obs")
    before = {file.name: file.read_bytes() for file in path.iterdir()}
    with pytest.raises(ArtifactError, match="already there"):
        neuron_set().save(path)
    assert before == {file.name: file.read_bytes() for file in path.iterdir()}


def test_a_write_that_fails_leaves_nothing(monkeypatch, tmp_path):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(PrerequisiteError, match="disk is full"):
        neuron_set().save(tmp_path / "set")
    assert not list(tmp_path.iterdir())


def damage_config(path, **changes):
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, **changes}))


def damage_link(path):
    (path / "tensors.safetensors").rename(path.parent / "elsewhere")
    (path / "tensors.safetensors").symlink_to(path.parent / "elsewhere")


def damage_cut(path):
    file = path / "tensors.safetensors"
    file.write_bytes(file.read_bytes()[:-9])


def damage_header(path):
    (path / "tensors.safetensors").write_bytes(struct.pack("<Q", 10**9) + b"{}")


@pytest.mark.parametrize(
    ("damage", "word"),
    [
        (damage_link, "link"),
        (damage_cut, "unreadable"),
        (damage_header, "header of 1000000000"),
        (lambda path: (path / "config.json").unlink(), "missing"),
        (lambda path: (path / "config.json").write_text("{"), "no JSON"),
        (lambda path: damage_config(path, format="babelscope.NeuronSet/9"), "format"),
        (lambda path: damage_config(path, format="babelscope.Observation/1"), "format"),
        (lambda path: damage_config(path, n_neurons=3), "out of range"),
        (lambda path: damage_config(path, n_layers=2), "offsets"),
        (lambda path: damage_config(path, languages=["en"]), "offsets"),
        (lambda path: damage_config(path, origin={}), "origin"),
    ],
)
def test_damage_is_refused_in_one_line(tmp_path, damage, word):
    path = neuron_set().save(tmp_path / "set")
    damage(path)
    with pytest.raises(ArtifactError, match=word) as caught:
        NeuronSet.load(path)
    assert "\n" not in str(caught.value)


def test_merging_adds_and_refuses_the_same_part_twice(tokenizer, observation):
    model = tiny_model("llama")
    sites = ["mlp_gate", "mlp_inner", "1.resid_out"]
    parts = [observe(model, tokenizer, TEXTS, sites=sites, shards=4, part=(i, 3), batch_size=1) for i in range(3)]
    whole = parts[0] + parts[1] + parts[2]
    assert equal_counts(whole, observation) and set(whole.parts) == {p for part in parts for p in part.parts}
    with pytest.raises(ArtifactError, match="is in both"):
        whole + parts[1]


def equal_counts(a, b):
    same = all(torch.equal(a[at].active, b[at].active) for at in a.records)
    return same and torch.equal(a.token_counts, b.token_counts) and torch.equal(a.shard_tokens, b.shard_tokens)


def test_observations_of_two_models_do_not_merge(tokenizer, observation):
    other = observe(tiny_model("qwen2"), tokenizer, TEXTS, sites=["mlp_gate", "mlp_inner", "1.resid_out"], shards=4)
    with pytest.raises(ArtifactError, match="same model"):
        observation + other


def test_nan_is_never_saved(tmp_path):
    sets = neuron_set()
    sets.score[0] = float("nan")
    with pytest.raises(ArtifactError, match="NaN"):
        sets.save(tmp_path / "set")
