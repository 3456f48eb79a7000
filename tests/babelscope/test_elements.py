"""Sparse changes of single values go in and out exactly; the learned mask has the largest moves, to the value."""

import copy
import itertools
import json

import numpy as np
import pytest
import torch
from artifact_damage import reseal
from conftest import tiny_model
from delta_cases import bits, random_delta, same_bits, to_dtype

from babelscope import Language, origin_of
from babelscope.errors import ArtifactError, MeasurementError, SelectionError
from babelscope.subnetworks.delta_overlap import element_overlap
from babelscope.subnetworks.elements import ElementDelta, Elements
from babelscope.subnetworks.lottery import lottery_ticket_mask


def state(model):
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}


def random_elements(model, *, share=0.3, seed=0, size=0.1, language="eu"):
    """Changes of a random share of every parameter's values, norms and embeddings too."""
    generator, elements = torch.Generator().manual_seed(seed), {}
    for name, weight in model.named_parameters():
        indices = (torch.rand(weight.numel(), generator=generator) < share).nonzero()[:, 0]
        values = size * torch.randn(len(indices), generator=generator)
        elements[name] = Elements(tuple(weight.shape), indices, values)
    return ElementDelta(origin_of(model, None), (Language(language),), elements, {"steps": 2})


def expected(base, deltas, scales):
    """{name: cast(base + Σ scale · delta)} in numpy float64, in the order of the digests."""
    found = {}
    for name, weight in base.named_parameters():
        total = weight.detach().double().flatten().numpy().copy()
        for delta, scale in sorted(zip(deltas, scales, strict=True), key=lambda pair: pair[0].digest):
            np.add.at(total, delta.elements[name].indices.numpy(), scale * delta.elements[name].values.double().numpy())
        found[name] = to_dtype(total, weight.dtype).view(weight.shape)
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_no_order_of_apply_and_revert_changes_a_bit(family, dtype):
    model = tiny_model(family, dtype=dtype)
    base, before = copy.deepcopy(model), bits(model)
    deltas = [random_elements(model, seed=seed, size=10.0**-seed) for seed in range(3)]
    scales = [1.0, -0.3, 1.0]
    for order in itertools.permutations(range(3)):
        for n, i in enumerate(order, start=1):
            deltas[i].apply(model, scales[i])
            wanted = expected(base, [deltas[j] for j in order[:n]], [scales[j] for j in order[:n]])
            assert all(torch.equal(weight, wanted[name]) for name, weight in model.named_parameters())
        for i in order:
            deltas[i].revert(model)
        assert same_bits(before, model)


def test_the_change_between_two_states_brings_back_the_trained_values():
    model = tiny_model("llama")
    start, before = copy.deepcopy(model), state(model)
    generator = torch.Generator().manual_seed(3)
    mask = {name: torch.rand(weight.shape, generator=generator) < 0.1 for name, weight in before.items()}
    with torch.no_grad():
        for name, weight in model.named_parameters():
            # A change within a factor of two is exact in float32, so the trained values come back bit for bit.
            weight += mask[name] * weight * 0.25
    delta = ElementDelta.between(before, model, mask, origin=origin_of(model, None), languages=["eu"])
    assert delta.n_values == sum(int(chosen.sum()) for chosen in mask.values())
    assert delta.apply(start) == 4 * delta.n_values
    assert same_bits(bits(model), start)


def test_between_takes_nothing_outside_the_mask():
    model, before = tiny_model("llama"), state(tiny_model("llama"))
    name = "model.layers.1.mlp.up_proj.weight"
    mask = {name: torch.zeros(48, 32, dtype=torch.bool)}
    mask[name][2, 5] = True
    with torch.no_grad():
        dict(model.named_parameters())[name].add_(1)
    delta = ElementDelta.between(before, model, mask, origin=origin_of(model, None), languages=["eu"])
    assert delta.elements[name].indices.tolist() == [2 * 32 + 5]
    with pytest.raises(ArtifactError, match="mask of .48, 32. came"):
        ElementDelta.between({}, model, mask, origin=origin_of(model, None), languages=["eu"])
    with pytest.raises(ArtifactError, match="tied ones come once"):
        wrong = {"model.norm.weight": mask[name]}
        ElementDelta.between(before, model, wrong, origin=origin_of(model, None), languages=["eu"])


def test_an_element_delta_comes_back_bit_for_bit(tmp_path):
    before = random_elements(tiny_model("llama"))
    path = before.save(tmp_path / "delta")
    after = ElementDelta.load(path)
    assert after.digest == before.digest and after.parameters == before.parameters
    assert list(after.elements) == sorted(before.elements) and after.languages == ("eu",)
    # Four bytes per value and four an index; the header names two tensors a parameter.
    rest = (path / "tensors.safetensors").stat().st_size - 8 * before.n_values
    assert 0 <= rest < 200 * len(before.elements)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda config: config.update(format="babelscope.Delta/1"), "is a babelscope Delta; expected"),
        (lambda config: config["elements"].append(["more", [3]]), "missing"),
        (lambda config: config["elements"].__setitem__(0, [config["elements"][0][0], [2]]), "out of range"),
        (lambda config: config.update(elements=None), "ElementDelta"),
    ],
)
def test_a_damaged_folder_is_refused_in_one_line(tmp_path, change, word):
    path = random_elements(tiny_model("gpt2")).save(tmp_path / "delta")
    config = json.loads((path / "config.json").read_text())
    change(config)
    (path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ArtifactError, match=word) as caught:
        ElementDelta.load(reseal(path))
    assert "\n" not in str(caught.value)


def test_what_is_no_change_is_refused():
    origin, tag = origin_of(tiny_model("llama"), None), (Language("eu"),)
    for indices, values, word in [
        ([1, 1], [0.0, 0.0], "ascending"),
        ([3, 6], [0.0, 0.0], "out of range"),
        ([-1, 2], [0.0, 0.0], "out of range"),
        ([0, 1], [0.0, torch.nan], "NaN"),
    ]:
        part = Elements((2, 3), torch.tensor(indices), torch.tensor(values))
        with pytest.raises(ArtifactError, match=word):
            ElementDelta(origin, tag, {"weight": part})


def test_composition_adds_over_the_union():
    origin, tag = origin_of(tiny_model("llama"), None), (Language("eu"),)

    def delta(rows, language="eu"):
        elements = {
            name: Elements((2, 3), torch.tensor(sorted(part)), torch.tensor([part[i] for i in sorted(part)]))
            for name, part in rows.items()
        }
        return ElementDelta(origin, (Language(language),), elements)

    a = delta({"w": {0: 1.0, 4: 2.0}, "only a": {1: 3.0}})
    b = delta({"w": {4: 8.0, 5: 16.0}, "only b": {0: 4.0}}, "cy")
    both = a - 0.5 * b
    assert both.languages == ("eu", "cy") and tag == a.languages
    assert {n: dict(zip(i.tolist(), v.tolist(), strict=True)) for n, (_, i, v) in both.elements.items()} == {
        "w": {0: 1.0, 4: -2.0, 5: -8.0},
        "only a": {1: 3.0},
        "only b": {0: -2.0},
    }
    found = element_overlap(a, b)
    assert (found.values, found.shared, found.shared_by_chance) == ((3, 3), 1, 2 * 2 / 6)
    assert found.cosine == pytest.approx(1) and found.jaccard == 1 / 5
    assert np.isnan(element_overlap(a, delta({"other": {0: 1.0}})).cosine)


def test_rows_and_elements_of_one_parameter_do_not_mix():
    model = tiny_model("llama")
    before, rows, elements = bits(model), random_delta(model), random_elements(model)
    norms = ElementDelta(
        elements.origin, elements.languages, {n: part for n, part in elements.elements.items() if "norm" in n}
    )
    rows.apply(model)
    with pytest.raises(ArtifactError, match="changes the same parameters by other cells"):
        elements.apply(model)
    norms.apply(model)
    rows.revert(model)
    elements.apply(model)
    with pytest.raises(ArtifactError, match="changes the same parameters by other cells"):
        rows.apply(model)
    norms.revert(model)
    elements.revert(model)
    assert same_bits(before, model)


def test_another_model_is_refused():
    delta = random_elements(tiny_model("llama"))
    with pytest.raises(ArtifactError, match="made for"):
        delta.apply(tiny_model("mistral"))
    with pytest.raises(ArtifactError, match="changes more of .2.; found nothing of that name"):
        more = {"more": Elements((2,), torch.tensor([0]), torch.tensor([1.0]))}
        ElementDelta(delta.origin, delta.languages, more).apply(tiny_model("llama"))


def numpy_mask(before, after, share, names):
    """The k largest moves by a stable sort: ties to the lower place."""
    moved = np.concatenate([np.abs(after[name].numpy() - before[name].numpy()).ravel() for name in names])
    mask = np.zeros(len(moved), dtype=bool)
    mask[np.argsort(-moved, kind="stable")[: round(share * len(moved))]] = True
    return mask


@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 1.0])
def test_the_mask_has_the_largest_moves(share):
    generator = torch.Generator().manual_seed(5)
    shapes = {"a": (40, 30), "b": (7,), "c": (11, 3, 5)}
    before = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    after = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    mask = lottery_ticket_mask(before, after, share, ["a", "c"])
    assert {name: tuple(chosen.shape) for name, chosen in mask.items()} == {"a": (40, 30), "c": (11, 3, 5)}
    flat = torch.cat([mask["a"].flatten(), mask["c"].flatten()]).numpy()
    assert flat.sum() == round(share * 1365)
    assert np.array_equal(flat, numpy_mask(before, after, share, ["a", "c"]))


def test_ties_go_to_the_lower_place():
    generator = torch.Generator().manual_seed(6)
    after = {name: torch.randint(-2, 3, (50, 4), generator=generator).float() for name in ("a", "b")}
    before = {name: torch.zeros(50, 4) for name in after}
    for share in (0.05, 0.3, 0.61, 0.9):
        for names in (["a", "b"], ["b", "a"]):
            mask = lottery_ticket_mask(before, after, share, names)
            flat = torch.cat([mask[name].flatten() for name in names]).numpy()
            assert np.array_equal(flat, numpy_mask(before, after, share, names))


def test_a_mask_of_nothing_is_refused():
    zero, one = {"a": torch.zeros(4)}, {"a": torch.ones(4)}
    for share in (0.0, 0.1, 1.5):
        with pytest.raises(SelectionError, match="share"):
            lottery_ticket_mask(zero, one, share, ["a"])
    with pytest.raises(MeasurementError, match="NaN"):
        lottery_ticket_mask(zero, {"a": torch.tensor([0, 1, torch.nan, 2])}, 0.5, ["a"])
