"""A delta comes back from disk bit for bit, and deltas add, subtract and scale over the union of their rows."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from artifact_damage import reseal
from conftest import tiny_model
from delta_cases import random_delta
from safetensors.torch import load_file, save_file

from babelscope import Language, NeuronSet, origin_of
from babelscope.errors import ArtifactError, PrerequisiteError, SelectionError
from babelscope.subnetworks.delta import Delta
from babelscope.subnetworks.delta_overlap import shared_cells


@pytest.fixture(scope="module")
def llama():
    return tiny_model("llama")


def by_hand(llama, rows, language="eu", **changes):
    """A delta of three layers of 48 neurons, width 32; rows: {(layer, neuron): value of all its weights}."""
    places = sorted(rows)
    values = torch.tensor([rows[place] for place in places])[:, None].expand(-1, 32)
    counts = torch.tensor([sum(layer == found for found, _ in places) for layer in range(3)])
    whole = {
        "origin": origin_of(llama, None),
        "languages": (Language(language),),
        "n_neurons": 48,
        "offsets": torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)]),
        "indices": torch.tensor([neuron for _, neuron in places], dtype=torch.int32),
        **{role: values.clone() for role in ("gate", "up", "down")},
        **changes,
    }
    return Delta(**whole)


def as_rows(delta, role="up"):
    """{(layer, neuron): first weight}."""
    places = [divmod(key, delta.n_neurons) for key in delta.keys.tolist()]
    return dict(zip(places, delta.rows[role][:, 0].tolist(), strict=True))


def test_a_delta_comes_back_bit_for_bit(llama, tmp_path):
    before = random_delta(llama)
    after = Delta.load(before.save(tmp_path / "delta"))
    for name in ("offsets", "indices", "gate", "up", "down"):
        assert torch.equal(getattr(before, name), getattr(after, name)), name
    for name in ("origin", "languages", "n_neurons", "parameters", "digest"):
        assert getattr(before, name) == getattr(after, name), name


def test_a_plain_mlp_has_no_gate(tmp_path):
    before = random_delta(tiny_model("gpt2"))
    after = Delta.load(before.save(tmp_path / "delta"))
    assert after.gate is None and set(after.rows) == {"up", "down"} and after.digest == before.digest


def test_the_file_holds_four_bytes_a_value_and_four_a_neuron(llama, tmp_path):
    delta = random_delta(llama, share=0.5)
    path = delta.save(tmp_path / "delta") / "tensors.safetensors"
    content = 4 * delta.n_values + 4 * len(delta.indices) + 8 * len(delta.offsets)
    assert delta.n_values == 3 * 32 * len(delta.indices) > 5_000
    assert 0 <= path.stat().st_size - content < 600


def test_equal_content_is_equal_bytes(llama, tmp_path):
    one, two = (random_delta(llama).save(tmp_path / name) for name in ("one", "two"))
    for file in ("config.json", "tensors.safetensors", "README.md"):
        assert (one / file).read_bytes() == (two / file).read_bytes()


def test_a_sum_has_the_union_of_the_rows(llama):
    a = by_hand(llama, {(0, 3): 1.0, (0, 7): 2.0, (2, 0): 4.0})
    b = by_hand(llama, {(0, 7): 8.0, (1, 47): 16.0}, language="cy")
    assert as_rows(a + b) == {(0, 3): 1.0, (0, 7): 10.0, (1, 47): 16.0, (2, 0): 4.0}
    assert as_rows(a - b, "down") == {(0, 3): 1.0, (0, 7): -6.0, (1, 47): -16.0, (2, 0): 4.0}
    assert as_rows(0.5 * a) == as_rows(a * 0.5) == {(0, 3): 0.5, (0, 7): 1.0, (2, 0): 2.0}
    assert as_rows(-a) == {(0, 3): -1.0, (0, 7): -2.0, (2, 0): -4.0}
    assert (a + b).languages == ("eu", "cy") and (a + b).layers == (0, 1, 2)
    assert (a + b).layer_counts.tolist() == [2, 1, 1]


def test_composition_agrees_with_numpy(llama):
    a, b = random_delta(llama, seed=1), random_delta(llama, seed=2, language="cy")
    dense = np.zeros((2, 3 * 48, 32), dtype=np.float32)
    for number, delta in enumerate((a, b)):
        dense[number, delta.keys.numpy()] = delta.gate.numpy()
    both = a + 3 * b
    found = np.zeros_like(dense[0])
    found[both.keys.numpy()] = both.gate.numpy()
    assert np.array_equal(found, dense[0] + np.float32(3) * dense[1])
    assert (a + b).digest == (b + a).digest != (a - b).digest


def test_deltas_of_other_models_do_not_add(llama):
    with pytest.raises(ArtifactError, match="composing deltas"):
        random_delta(llama) + random_delta(tiny_model("gpt2"))
    with pytest.raises(ArtifactError, match="finite"):
        random_delta(llama) * float("inf")
    with pytest.raises(ArtifactError, match="NaN or infinity"):
        random_delta(llama) * 1e39


def test_a_delta_of_a_set_takes_its_rows_in_order(llama):
    mask = torch.zeros(2, 3, 48, dtype=torch.bool)
    mask[0, 1, 5] = mask[1, 0, 9] = mask[1, 2, 4] = True
    tags = (Language("cy"), Language("eu"))
    sets = NeuronSet.from_mask(
        mask, mask.float(), origin=origin_of(llama, None), languages=tags, at="mlp_gate", method="hand", parameters={}
    )
    rows = {role: torch.arange(64.0).view(2, 32) for role in ("gate", "up", "down")}
    delta = Delta.of(sets["eu"], rows, parameters={"steps": 2})
    assert as_rows(delta) == {(0, 9): 0.0, (2, 4): 32.0}
    rows["up"].zero_()
    assert as_rows(delta) == {(0, 9): 0.0, (2, 4): 32.0}
    neurons, parts = delta.layer_of(2)
    assert neurons.tolist() == [4] and torch.equal(parts["down"], torch.arange(32.0, 64.0)[None])
    with pytest.raises(SelectionError, match="one"):
        Delta.of(sets, rows)


def test_overlap_counts_shared_rows_and_their_angle(llama):
    a = by_hand(llama, {(0, 3): 1.0, (0, 7): 2.0, (2, 0): 4.0})
    b = by_hand(llama, {(0, 7): 8.0, (1, 47): 16.0, (2, 0): 1.0}, down=torch.full((3, 32), -1.0))
    found = shared_cells(a, b)
    assert (found.rows, found.shared, found.layer_shared) == ((3, 3), 2, (1, 0, 1))
    assert found.jaccard == 2 / 4
    assert found.shared_by_chance == pytest.approx((2 * 1 + 0 * 1 + 1 * 1) / 48)
    assert found.cosine["up"] == pytest.approx((2 * 8 + 4 * 1) / (20**0.5 * 65**0.5))
    assert found.cosine["down"] == pytest.approx(-(2 + 4) / (20**0.5 * 2**0.5))
    apart = shared_cells(a, by_hand(llama, {(1, 1): 1.0}))
    assert apart.shared == 0 and np.isnan(apart.cosine["gate"])


def test_overlap_with_itself_is_whole(llama):
    a = random_delta(llama)
    found = shared_cells(a, -2 * a)
    assert found.jaccard == 1 and all(cosine == pytest.approx(-1) for cosine in found.cosine.values())


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"up": torch.full((2, 32), torch.nan)}, "NaN"),
        ({"indices": torch.tensor([4, 48], dtype=torch.int32)}, "out of range"),
        ({"indices": torch.tensor([4, 4], dtype=torch.int32)}, "ascending"),
        ({"offsets": torch.tensor([0, 1, 3, 3])}, "do not cut"),
        ({"offsets": torch.tensor([0, 2, 1, 2])}, "ascending"),
    ],
)
def test_what_is_no_delta_is_refused(llama, change, word):
    with pytest.raises(ArtifactError, match=word):
        by_hand(llama, {(0, 3): 1.0, (0, 7): 2.0}, **change)


def test_a_damaged_folder_is_refused_in_one_line(llama, tmp_path):
    for number, (key, value, word) in enumerate(
        [
            ("format", "babelscope.Delta/3", "format"),
            ("n_layers", 4, "offsets"),
            ("n_neurons", 3, "out of range"),
            ("languages", [], "language"),
            ("parameters", None, "Delta"),
        ]
    ):
        path = random_delta(llama).save(tmp_path / str(number))
        config = json.loads((path / "config.json").read_text())
        (path / "config.json").write_text(json.dumps({**config, key: value}))
        with pytest.raises(ArtifactError, match=word) as caught:
            Delta.load(reseal(path))
        assert "\n" not in str(caught.value)
    tensors = load_file(path / "tensors.safetensors")
    (path / "config.json").write_text(
        json.dumps(json.loads((tmp_path / "1" / "config.json").read_text()) | {"n_layers": 3})
    )
    for name, tensor in [("down", tensors["down"][:, 1:]), ("up", tensors["up"][1:]), ("gate", tensors["gate"].half())]:
        save_file({**tensors, name: tensor.contiguous()}, path / "tensors.safetensors")
        with pytest.raises(ArtifactError, match=f"tensor '(down|{name})' is"):
            Delta.load(reseal(path))
    save_file({**tensors, "up": tensors["up"] * torch.inf}, path / "tensors.safetensors")
    with pytest.raises(ArtifactError, match="NaN or infinity"):
        Delta.load(reseal(path))
    whole = (path / "tensors.safetensors").read_bytes()
    (path / "tensors.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ArtifactError, match="unreadable|damaged"):
        Delta.load(reseal(path))


class FakeHub:
    """Keeps what it is given."""

    def __init__(self, error=None):
        self.calls, self.files, self.error = [], {}, error

    def create_repo(self, repo_id, *, private, exist_ok):
        self.calls.append((repo_id, private, exist_ok))
        if self.error:
            raise self.error

    def upload_folder(self, *, repo_id, folder_path, commit_message):
        from pathlib import Path

        self.files = {path.name: path.read_bytes() for path in Path(folder_path).iterdir()}


def test_upload_sends_the_saved_folder_and_nothing_else(llama, tmp_path):
    delta, hub = random_delta(llama), FakeHub()
    assert delta.push_to_hub("someone/delta-eu", api=hub) == "https://huggingface.co/someone/delta-eu"
    assert hub.calls == [("someone/delta-eu", True, True)]
    saved = delta.save(tmp_path / "delta")
    card = saved / "README.md"
    card.write_text(card.read_text().replace("USER/NAME", "someone/delta-eu"))
    assert hub.files == {path.name: path.read_bytes() for path in saved.iterdir()}


def test_text_is_never_uploaded(llama):
    hub = FakeHub()
    for parameters in ({"sample": "Kaixo\nmundua"}, {"a": [{"b": "x" * 200}]}, {"y" * 200: 1}):
        with pytest.raises(ArtifactError, match="characters of text"):
            replace(random_delta(llama), parameters=parameters).push_to_hub("someone/delta", api=hub)
    assert not hub.calls


def test_a_hub_that_refuses_is_one_line(llama):
    with pytest.raises(PrerequisiteError, match="could not be uploaded .no route. no"):
        random_delta(llama).push_to_hub("someone/delta", api=FakeHub(ConnectionError("no route. no\nmore")))
