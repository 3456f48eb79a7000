import hashlib
import json
import struct
from dataclasses import replace

import pytest
import torch
from artifact_damage import as_before_hashes, reseal
from conftest import tiny_model
from safetensors.torch import load_file, save_file

from babelscope import NeuronSet, Observation, observe
from babelscope.artifacts import Origin
from babelscope.artifacts.json_entries import (
    as_flag,
    as_list,
    as_number,
    as_table,
    as_text,
    as_whole,
    entries_in,
    entries_of,
)
from babelscope.errors import ArtifactError, PrerequisiteError
from babelscope.languages import parse_languages
from babelscope.study.parts import set_results

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
        (lambda path: damage_config(path, format="babelscope.Observation/1"), "is a babelscope Observation; expected"),
        (lambda path: damage_config(path, n_neurons=3), "came; expected 0–2"),
        (lambda path: damage_config(path, n_layers=2), "offsets"),
        (lambda path: damage_config(path, languages=["en"]), "offsets"),
        (lambda path: damage_config(path, origin={}), "origin"),
    ],
)
def test_damage_is_refused_in_one_line(tmp_path, damage, word):
    path = neuron_set().save(tmp_path / "set")
    damage(path)
    with pytest.raises(ArtifactError) as caught:
        NeuronSet.load(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(ArtifactError, match=word) as caught:
        NeuronSet.load(reseal(path))
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


def test_config_holds_the_hash_of_the_tensors_as_sha256sum_prints_it(observation, tmp_path):
    path = observation.save(tmp_path / "obs")
    config = json.loads((path / "config.json").read_text())
    digest = hashlib.sha256((path / "tensors.safetensors").read_bytes()).hexdigest()
    assert config["sha256"]["tensors"] == digest and config["format"] == "babelscope.Observation/2"


def test_one_flipped_bit_is_refused_and_unverified_numbers_are_said_to_be_that(observation, tmp_path, caplog):
    path = observation.save(tmp_path / "obs")
    file = path / "tensors.safetensors"
    damaged = bytearray(file.read_bytes())
    damaged[8 + struct.unpack("<Q", damaged[:8])[0]] ^= 1  # the last bit of the first number
    file.write_bytes(damaged)
    with pytest.raises(ArtifactError, match="sha256"):
        Observation.load(path)
    assert not equal(Observation.load(path, verify=False), observation)
    assert "not compared with their hash, as asked" in caplog.text


def test_an_artifact_of_an_earlier_release_is_read_and_said_to_be_one(observation, tmp_path, caplog):
    path = as_before_hashes(observation.save(tmp_path / "obs"))
    assert equal(Observation.load(path), observation)
    assert "of an earlier release, without hashes" in caplog.text
    with pytest.raises(ArtifactError, match="it is damaged"):
        damage_config(path, format="babelscope.Observation/2")
        Observation.load(path)


def test_what_can_not_be_read_back_is_not_saved(tmp_path):
    for parameters, word in (
        ({"a": {1: "x", "1": "y"}}, "twice"),
        ({"a": float("nan")}, "no JSON"),
        ({"a": object()}, "no JSON"),
        ({"a": "x" * 10**6}, "expected at most 1000000"),
    ):
        with pytest.raises(ArtifactError, match=word):
            replace(neuron_set(), parameters=parameters).save(tmp_path / "set")
    assert not list(tmp_path.iterdir())


def change(name, index, value):
    def damage(path, config, tensors):
        tensors[name][index] = value

    return damage


IMPOSSIBLE = {
    "negative tokens": change("token_counts", 0, -5),
    "tokens that the card contradicts": lambda path, config, tensors: config["tokens"].update(en=7),
    "languages in another order": lambda path, config, tensors: config.update(languages=["fi", "en"]),
    "negative shard tokens": change("shard_tokens", (0, 0), -1),
    "shards that do not add up": change("shard_tokens", (0, 0), 10**6),
    "more documents than tokens": change("documents", 0, 10**6),
    "negative truncated": change("truncated", 0, -1),
    "a count of 2^62": change("mlp_gate.active", (0, 0, 0), 2**62),
    "a negative count": change("mlp_gate.active", (0, 0, 0), -1),
    "a count that its shards contradict": change("mlp_gate.shard_active", (0, 0, 0, 0), 3),
    "a negative shard count": change("mlp_gate.shard_active", (0, 0, 0, 0), -1),
    "negative squares": change("resid_out.sumsq", (0, 0, 0), -1.0),
    "a sum that its squares do not allow": change("resid_out.sum", (0, 0, 0), 1e9),
    "a negative norm": change("resid_out.norm", (0, 0), -1.0),
    "a norm that the squares do not allow": change("resid_out.norm", (0, 0), 1e9),
    "a negative length of a column": change("mlp_inner.weight_norm", (0, 0), -1.0),
    "lengths of more tokens than there are": change("resid_out.lengths", (0, 0, 0), 10**6),
    "first tokens that their squares do not allow": change("resid_out.first_sum", (0, 0, 0), 1e9),
    "a tensor of nothing": lambda path, config, tensors: tensors.update(more=torch.zeros(1)),
    "an entry of nothing": lambda path, config, tensors: config.update(more=1),
    "no model": lambda path, config, tensors: config["origin"].update(model_hash=""),
    "layers as words": lambda path, config, tensors: config["sites"].update(mlp_gate=["0", "1", "2"]),
    "layers that are no list": lambda path, config, tensors: config["sites"].update(mlp_gate=5),
    "a layer twice": lambda path, config, tensors: config["sites"].update(mlp_gate=[0, 0, 2]),
    "sites that are no object": lambda path, config, tensors: config.update(sites="x"),
    "settings that are no object": lambda path, config, tensors: config.update(settings=True),
    "parts that are no texts": lambda path, config, tensors: config.update(parts=[1]),
}


@pytest.mark.parametrize("damage", IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_sums_that_no_pass_can_give_are_refused_even_under_right_hashes(observation, tmp_path, damage):
    path = observation.save(tmp_path / "obs")
    config, tensors = json.loads((path / "config.json").read_text()), load_file(path / "tensors.safetensors")
    damage(path, config, tensors)
    (path / "config.json").write_text(json.dumps(config))
    save_file(tensors, path / "tensors.safetensors")
    with pytest.raises(ArtifactError) as caught:
        Observation.load(reseal(path))
    assert "\n" not in str(caught.value) and "sha256" not in str(caught.value)


def test_an_entry_of_its_kind_is_taken_and_any_other_is_refused_by_its_name():
    kinds = {as_text: "a", as_whole: 3, as_number: 0.5, as_flag: True, as_list: [1], as_table: {"a": 1}}
    for take, value in kinds.items():
        assert take(value, "entry") == value
        # A whole number is a number too; of all else each is taken by its own reader alone.
        for other_take in set(kinds) - {take, *([as_number] if take is as_whole else [])}:
            with pytest.raises(ArtifactError, match=r"entry is .*, and n"):
                other_take(value, "entry")
    for value in (-1, 2**63, True, 1.0):
        with pytest.raises(ArtifactError, match="whole number of 0 or more"):
            as_whole(value, "entry")
    for value in (float("nan"), float("inf"), True):
        with pytest.raises(ArtifactError, match="no finite number"):
            as_number(value, "entry")
    assert entries_in([1, 2], "entry", 2) == [1, 2] and entries_of({"b": 2, "a": 1}, "entry", ("a", "b")) == [1, 2]
    with pytest.raises(ArtifactError, match="no list of 3"):
        entries_in([1, 2], "entry", 3)
    with pytest.raises(ArtifactError, match="lacks 'b'"):
        entries_of({"a": 1}, "entry", ("a", "b"))


def test_sets_are_the_numbers_of_results_json():
    mask = torch.zeros(2, 3, 48, dtype=torch.bool)
    mask[0, 1, :7] = mask[1, 2, 3] = mask[1, 0, 3] = True
    numbers = set_results(neuron_set(mask), 0.1)
    assert numbers["neurons"] == {"en": 7, "fi": 2} and numbers["top_rate"] == 0.1
    assert numbers["layers"].counts == [[0, 7, 0], [1, 0, 1]]
