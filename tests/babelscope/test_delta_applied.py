"""What a model holds is always cast(base + Σ changes), and it comes back bit for bit."""

import copy
import gc
import itertools
import weakref

import numpy as np
import pytest
import torch
from conftest import CONFIGS, tiny_model
from delta_cases import bits, expected_rows, holds, random_delta, same_bits

from babelscope import layout_of
from babelscope.errors import ArtifactError, MeasurementError, PrerequisiteError
from babelscope.subnetworks.applied import active_changes
from babelscope.subnetworks.cell_sums import (
    Active,
    BaseCells,
    all_finite,
    among_keys,
    summed_cells,
    touched_cells,
    with_new_base,
)
from babelscope.subnetworks.places import Cells, check_weights_writable

DTYPES = (torch.float32, torch.float16, torch.bfloat16)


@pytest.mark.parametrize("family", CONFIGS)
def test_apply_adds_the_rows_and_revert_takes_them_back(family):
    model = tiny_model(family)
    before, delta = bits(model), random_delta(model)
    expected = expected_rows(model, [delta])
    # As many bytes as the delta has values of the model's dtype: nothing else is written.
    assert delta.apply(model) == 4 * delta.n_values
    assert holds(model, expected)
    named = {name for name, weight in bits(model).items() if not torch.equal(weight, before[name])}
    assert named and all("mlp" in name or "fc" in name for name in named)
    assert delta.revert(model) == 4 * delta.n_values
    assert same_bits(before, model) and active_changes(model) == ()


@pytest.mark.parametrize(("family", "dtype"), [*zip(("llama", "gpt2", "mixtral"), DTYPES, strict=True)])
def test_no_order_of_apply_and_revert_changes_a_bit(family, dtype):
    model = tiny_model(family, dtype=dtype)
    base, before = copy.deepcopy(model), bits(model)
    # Half of the neurons each, so that most rows are shared by two or three; sizes that do not add up exactly.
    deltas = [random_delta(model, share=0.5, seed=seed, size=10.0**-seed) for seed in range(3)]
    expected = {
        subset: expected_rows(base, [deltas[i] for i in subset])
        for n in range(4)
        for subset in itertools.combinations(range(3), n)
    }
    for order in itertools.permutations(range(3)):
        for back in (order, (1, 0, 2)):
            inside = set()
            for i in order:
                deltas[i].apply(model)
                inside.add(i)
                assert holds(model, expected[tuple(sorted(inside))])
            for i in back:
                deltas[i].revert(model)
                inside.remove(i)
                assert holds(model, expected[tuple(sorted(inside))])
            assert same_bits(before, model)


def test_scales_are_exact_and_negative_zero_survives():
    model = tiny_model("llama", dtype=torch.bfloat16)
    layout_of(model).neuron_rows(1)["down"].detach()[0].fill_(-0.0)
    base, before = copy.deepcopy(model), bits(model)
    a, b = random_delta(model, seed=1), random_delta(model, seed=2)
    a.apply(model, 0.3)
    b.apply(model, scale=-2)
    assert holds(model, expected_rows(base, [a, b], [0.3, -2.0]))
    assert {active.scale for active in active_changes(model)} == {0.3, -2}
    b.revert(model)
    assert holds(model, expected_rows(base, [a], [0.3]))
    a.revert(model)
    assert same_bits(before, model)


def test_the_base_is_kept_once_and_forgotten():
    model = tiny_model("llama")
    a, b = random_delta(model, share=0.5, seed=1), random_delta(model, share=0.5, seed=2)
    a.apply(model)
    b.apply(model)
    assert [active.change for active in active_changes(model)] == sorted([a, b], key=lambda delta: delta.digest)
    a.revert(model)
    assert [active.change for active in active_changes(model)] == [b]
    seen = weakref.ref(model)
    del model
    gc.collect()
    assert seen() is None


def test_an_equal_delta_loaded_again_is_the_same_change(tmp_path):
    model = tiny_model("llama")
    before, delta = bits(model), random_delta(model)
    twin = type(delta).load(delta.save(tmp_path / "delta"))
    delta.apply(model, 0.5)
    with pytest.raises(ArtifactError, match="applied already, with scale 0.5"):
        twin.apply(model)
    twin.revert(model)
    assert same_bits(before, model)


def test_inside_the_context_the_model_speaks_with_the_delta(ids):
    model = tiny_model("llama")
    before, delta = bits(model), random_delta(model)
    plain = model(ids).logits
    with delta.applied(model, 2.0):
        assert holds(model, expected_rows(tiny_model("llama"), [delta], [2.0]))
        assert not torch.allclose(model(ids).logits, plain)
    assert same_bits(before, model) and torch.equal(model(ids).logits, plain)
    with pytest.raises(RuntimeError, match="inner"), delta.applied(model):
        raise RuntimeError("inner")
    assert same_bits(before, model)


def test_a_live_model_is_switched_between_two_answers(ids):
    model = tiny_model("llama")
    a, b = random_delta(model, seed=1, size=1.0), random_delta(model, seed=2, size=1.0)

    def answer(model):
        return model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=6, do_sample=False).tolist()

    expected = []
    for delta in (a, b):
        fresh = tiny_model("llama")
        delta.apply(fresh)
        expected.append(answer(fresh))
    plain = answer(model)
    a.apply(model)
    first = answer(model)
    a.revert(model)
    b.apply(model)
    second = answer(model)
    b.revert(model)
    assert [first, second] == expected and first != second != plain
    assert answer(model) == plain


def test_what_is_not_applied_is_not_reverted():
    model = tiny_model("llama")
    delta = random_delta(model)
    with pytest.raises(ArtifactError, match="is not applied to this model"):
        delta.revert(model)
    delta.apply(model)
    with pytest.raises(ArtifactError, match="is not applied to this model"):
        delta.revert(copy.deepcopy(model))
    with pytest.raises(ArtifactError, match="finite number"):
        random_delta(model, seed=5).apply(model, float("nan"))


def test_the_way_back_stays_open_when_the_config_was_edited():
    model = tiny_model("llama")
    before, delta = bits(model), random_delta(model)
    delta.apply(model)
    model.config.use_cache = not model.config.use_cache
    delta.revert(model)
    assert same_bits(before, model)


def test_another_model_is_refused():
    delta = random_delta(tiny_model("llama"))
    for other in (tiny_model("mistral"), tiny_model("gpt2"), tiny_model("mixtral")):
        before = bits(other)
        with pytest.raises(ArtifactError, match="made for") as caught:
            delta.apply(other)
        assert same_bits(before, other) and "\n" not in str(caught.value)


@pytest.mark.parametrize("role", ["gate", "up", "down"])
def test_a_failure_writes_nothing(role):
    model = tiny_model("llama")
    delta = random_delta(model, share=0.5)
    neuron = int(delta.layer_of(2)[0][-1])
    layout_of(model).neuron_rows(2)[role].detach()[0, neuron, 3] = torch.nan
    before = bits(model)
    with pytest.raises(MeasurementError, match=f"weights of {role} hold NaN"):
        delta.apply(model)
    assert same_bits(before, model) and active_changes(model) == ()


def test_a_sum_out_of_range_writes_nothing():
    model = tiny_model("llama", dtype=torch.float16)
    before, delta = bits(model), random_delta(model)
    with pytest.raises(MeasurementError, match="leave the range of torch.float16"):
        delta.apply(model, 1e8)
    assert same_bits(before, model)


def test_an_interrupted_write_is_put_back(monkeypatch):
    from babelscope.subnetworks.places import NeuronPlace

    model = tiny_model("llama")
    before, delta = bits(model), random_delta(model)
    whole, calls = NeuronPlace.write, []

    def stopped(self, keys, values):
        calls.append(self.role)
        if len(calls) == 2:
            raise KeyboardInterrupt
        whole(self, keys, values)

    monkeypatch.setattr(NeuronPlace, "write", stopped)
    with pytest.raises(KeyboardInterrupt):
        delta.apply(model)
    assert calls[:2] == ["gate", "up"] and same_bits(before, model) and active_changes(model) == ()


def test_weights_changed_in_between_are_not_overwritten():
    model = tiny_model("llama")
    delta = random_delta(model)
    delta.apply(model)
    layer, neuron = delta.layers[0], int(delta.indices[0])
    weights = layout_of(model).neuron_rows(layer)["up"].detach()[0]
    kept = weights[neuron, 0].clone()
    weights[neuron, 0] += 1
    for call in (delta.revert, random_delta(model, share=1.0, seed=9).apply):
        with pytest.raises(MeasurementError, match="weights of up were changed in 1 places"):
            call(model)
    weights[neuron, 0] = kept
    delta.revert(model)
    assert same_bits(bits(tiny_model("llama")), model)


@pytest.mark.parametrize("other", [torch.bfloat16, torch.float64])
def test_a_model_converted_while_it_holds_deltas_is_the_converted_base_after_revert(other):
    model = tiny_model("llama")
    a, b = random_delta(model, share=0.5, seed=1), random_delta(model, share=0.5, seed=2)
    a.apply(model)
    b.apply(model)
    model.to(other)
    a.revert(model)
    if other == torch.bfloat16:
        assert holds(model, expected_rows(tiny_model("llama").to(other), [b]))
    b.revert(model)
    assert same_bits(bits(tiny_model("llama").to(other)), model)


def test_a_conversion_there_and_back_is_noticed():
    model = tiny_model("llama")
    delta = random_delta(model)
    delta.apply(model)
    model.to(torch.bfloat16).to(torch.float32)
    with pytest.raises(MeasurementError, match="were changed"):
        delta.revert(model)


def test_weights_that_can_not_be_written_are_refused():
    delta = random_delta(tiny_model("llama"))
    with pytest.raises(PrerequisiteError, match="float8"):
        delta.apply(tiny_model("llama").to(torch.float8_e4m3fn))
    with pytest.raises(PrerequisiteError, match="offload"):
        delta.apply(tiny_model("llama").to("meta"))
    shared = tiny_model("llama")
    shared.model.layers[2].mlp.down_proj.weight = shared.model.layers[0].mlp.down_proj.weight
    with pytest.raises(PrerequisiteError, match="layers 0 and 2 share the weights of down"):
        delta.apply(shared)
    with pytest.raises(PrerequisiteError, match="up are Tensor of torch.int8; expected plain"):
        check_weights_writable(torch.zeros(2, dtype=torch.int8), "up")
    mixed = tiny_model("llama")
    mixed.model.layers[1].mlp.to(torch.bfloat16)
    with pytest.raises(PrerequisiteError, match="expected one dtype"):
        delta.apply(mixed)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_model_moved_to_a_gpu_goes_on_exactly(dtype):
    model = tiny_model("llama", dtype=dtype)
    base = copy.deepcopy(model)
    a, b = random_delta(model, share=0.5, seed=1), random_delta(model, share=0.5, seed=2)
    a.apply(model)
    model.to("cuda")
    b.apply(model)
    assert holds(copy.deepcopy(model).to("cpu"), expected_rows(base, [a, b]))
    a.revert(model)
    b.revert(model.to("cpu"))
    assert same_bits(bits(base), model)


class Addend:
    """A change of the cells of one place."""

    def __init__(self, digest, keys, values):
        self.digest, self.title = digest, digest
        self.added = {"w": Cells(torch.tensor(keys), torch.tensor(values, dtype=torch.float32))}

    def cells(self):
        return self.added

    def places(self, model, *, applied=False):
        return {}

    def storages(self, model):
        return set()


def test_cells_are_summed_in_float64_and_cast_once_whatever_the_order_of_the_changes():
    base = BaseCells(torch.tensor([2, 7]), torch.tensor([1.0, 2.0]))
    base = with_new_base(base, torch.tensor([3, 7]), torch.ones(2))
    # Cell 7 has its base already; what stands there now holds a change and is no base.
    assert base.keys.tolist() == [2, 3, 7] and base.values.tolist() == [1.0, 1.0, 2.0]
    changes = [
        Active(Addend("b", [2, 3], [1e-7, 2e8]), 0.5),
        Active(Addend("a", [3, 7], [-1e8, 0.25]), 1),
        Active(Addend("c", [2, 9], [3e-8, 5.0]), -2.0),
    ]
    expected = np.array([1.0, 1.0, 2.0])
    for cells, values, scale in (([1, 2], [-1e8, 0.25], 1), ([0, 1], [1e-7, 2e8], 0.5), ([0], [3e-8], -2.0)):
        expected[cells] += np.float32(values).astype(np.float64) * scale
    for order in itertools.permutations(changes):
        summed = summed_cells(base, base.keys, "w", order)
        assert summed.dtype == torch.float32 and summed.tolist() == expected.astype(np.float32).tolist()
    assert touched_cells(torch.tensor([1, 2, 7, 9]), "w", changes[:2]).tolist() == [False, True, True, False]
    assert touched_cells(torch.tensor([1, 2]), "other", changes).tolist() == [False, False]
    assert among_keys(torch.tensor([2, 4, 99]), base.keys).tolist() == [True, False, False]
    assert all_finite(torch.zeros(0)) and all_finite(torch.tensor([1.0, -2.0]))
    assert not any(all_finite(torch.tensor([1.0, value, 2.0])) for value in (float("nan"), float("inf"), -float("inf")))
