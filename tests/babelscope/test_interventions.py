"""Each intervention does what its formula says, and at strength 0 nothing at all."""

import numpy as np
import pytest
import torch

from babelscope.artifacts import FeatureMap
from babelscope.interventions import (
    KINDS,
    active_features,
    add,
    affine,
    clamp_feature_values,
    force,
    project_out,
    promote,
    replace,
    scale,
    scale_feature_values,
    subspace,
)
from babelscope.steering.unit_changes import at_experts, at_units, change_of

X = torch.tensor([[[1.0, 2.0, -3.0], [0.5, 0.0, 4.0]], [[-1.0, 1.0, 1.0], [2.0, 2.0, 2.0]]])
V = torch.tensor([3.0, 0.0, 4.0])

CHANGES = {name: entry.act for name, entry in KINDS.items() if not entry.needs}
"""Kinds that need no more than a vector."""


def bits(tensor):
    whole = {2: torch.int16, 4: torch.int32, 8: torch.int64}
    return tensor.view(whole[tensor.element_size()])


def random(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def test_add_by_hand():
    assert add(X, V, 0.5)[0, 0].tolist() == [2.5, 2.0, -1.0]


def test_replace_by_hand():
    assert replace(X, V, 0.5)[0, 0].tolist() == [2.0, 1.0, 0.5]
    assert torch.equal(replace(X, V, 1.0), V.expand_as(X))


def test_scale_by_hand():
    assert scale(X, V, 1.0)[0, 0].tolist() == [3.0, 0.0, -12.0]
    assert scale(X, V, 0.5)[0, 0].tolist() == [2.0, 1.0, -7.5]


def test_project_out_by_hand():
    # x·q = (1·3 - 3·4)/5 = -9/5, so x loses -9/5·(3, 0, 4)/5.
    torch.testing.assert_close(project_out(X, V, 1.0)[0, 0], torch.tensor([1 + 27 / 25, 2.0, -3 + 36 / 25]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("vector", [V, V * torch.nan, V * torch.inf, V * 0])
@pytest.mark.parametrize("kind", CHANGES)
def test_strength_zero_changes_no_bit_whatever_the_vector(kind, vector, dtype):
    value = X.to(dtype)
    value[1, 1, 0] = -0.0
    rows = torch.tensor([0.0, 1.0])[:, None, None]
    assert torch.equal(bits(CHANGES[kind](value, vector, 0.0)), bits(value))
    mixed = CHANGES[kind](value, vector, rows)
    assert torch.equal(bits(mixed[0]), bits(value[0]))
    everywhere = CHANGES[kind](value, vector, torch.zeros(2, 2, 1))
    assert torch.equal(bits(everywhere), bits(value))


@pytest.mark.parametrize("kind", CHANGES)
def test_a_strength_per_row_equals_one_strength_at_a_time(kind):
    value, vector = random(3, 5, 8), random(8, seed=1)
    strengths = [0.3, 0.0, -1.5]
    mixed = CHANGES[kind](value, vector, torch.tensor(strengths)[:, None, None])
    for row, strength in enumerate(strengths):
        torch.testing.assert_close(mixed[row], CHANGES[kind](value[row], vector, strength))


@pytest.mark.parametrize("kind", CHANGES)
def test_a_vector_per_row_equals_one_vector_at_a_time(kind):
    value, vectors = random(3, 5, 8), random(3, 1, 8, seed=1)
    mixed = CHANGES[kind](value, vectors, torch.full((3, 1, 1), 0.7))
    for row in range(3):
        torch.testing.assert_close(mixed[row], CHANGES[kind](value[row], vectors[row, 0], 0.7))


@pytest.mark.parametrize("kind", CHANGES)
def test_half_precision_is_computed_in_float32_and_cast_back_once(kind):
    value, vector = random(3, 5, 64, dtype=torch.bfloat16), random(64, seed=1)
    exact = CHANGES[kind](value.float(), vector, 0.3)
    assert torch.equal(CHANGES[kind](value, vector, 0.3), exact.bfloat16())
    assert not torch.equal(exact.bfloat16().float(), exact)


def test_float64_stays_float64_against_numpy():
    value, vector = random(4, 6, dtype=torch.float64), random(6, seed=1, dtype=torch.float64)
    x, v = value.numpy(), vector.numpy()
    q = v / np.linalg.norm(v)
    expected = {
        "add": x + 0.3 * v,
        "replace": x + 0.3 * (v - x),
        "scale": x + 0.3 * (v * x - x),
        "project_out": x - 0.3 * (x @ q)[:, None] * q,
    }
    for kind, witness in expected.items():
        result = CHANGES[kind](value, vector, 0.3)
        assert result.dtype == torch.float64
        np.testing.assert_allclose(result.numpy(), witness, rtol=0, atol=1e-14)


def test_projecting_out_twice_is_once_and_leaves_nothing():
    value, vector = random(3, 5, 8), random(8, seed=1)
    once = project_out(value, vector, 1.0)
    torch.testing.assert_close(project_out(once, vector, 1.0), once)
    assert float((once @ vector / vector.norm()).abs().max()) < 1e-5


def test_projecting_out_a_share_and_back_leaves_the_square():
    value, vector = random(3, 5, 8), random(8, seed=1)
    along = value @ vector
    there_and_back = project_out(project_out(value, vector, 0.5), vector, -0.5)
    torch.testing.assert_close(there_and_back @ vector, along * 0.5 * 1.5)


def test_add_and_its_inverse_is_identity():
    value, vector = random(3, 5, 8), random(8, seed=1)
    torch.testing.assert_close(add(add(value, vector, 2.0), vector, -2.0), value)


def test_units_that_are_not_chosen_keep_every_bit():
    value = X.clone()
    value[0, 0, 1] = -0.0
    new = at_units(add, value, torch.tensor([2, 0]), torch.tensor([10.0, 20.0]), 1.0)
    assert new[0, 0].tolist() == [21.0, -0.0, 7.0]
    assert torch.equal(bits(new[..., 1]), bits(value[..., 1]))
    assert at_units(add, value, torch.tensor([2]), torch.tensor([1.0]), 0.0) is value


def test_each_expert_gets_its_own_part_of_the_vector():
    value = torch.ones(1, 2, 2, 3)
    routes = torch.tensor([[[0, 1], [1, 0]]])
    vector = torch.tensor([[10.0, 20.0, 30.0], [1.0, 2.0, 3.0]])
    chosen = torch.tensor([[True, False, True], [False, True, False]])
    new = at_experts(add, value, routes, vector, chosen, 1.0)
    first, second = [11.0, 1.0, 31.0], [1.0, 3.0, 1.0]
    assert new.tolist() == [[[first, second], [second, first]]]


@pytest.mark.parametrize("strength", [0.5, torch.full((2, 1, 1), 0.5)], ids=["one", "by row"])
@pytest.mark.parametrize("kind", CHANGES)
def test_inputs_are_left_as_they_were_and_gradients_flow(kind, strength):
    value, vector = random(2, 3, 8).requires_grad_(), random(8, seed=1)
    before, seen = value.detach().clone(), vector.clone()
    new = CHANGES[kind](value, vector, strength)
    new.sum().backward()
    assert torch.equal(value.detach(), before)
    assert torch.equal(vector, seen)
    assert value.grad is not None
    assert float(value.grad.abs().sum()) > 0


# Subspaces, maps, features and routers


def test_a_subspace_by_hand():
    basis = torch.tensor([[0.6, 0.0, 0.8], [0.0, 1.0, 0.0]])
    # (1, 2, -3) has coordinates -1.8 and 2 there; the centre (3, 0, 4) has 5 and 0.
    new = subspace(X[0, 0], V, basis, 1.0)
    torch.testing.assert_close(new, torch.tensor([1 + 6.8 * 0.6, 0.0, -3 + 6.8 * 0.8]))
    torch.testing.assert_close(subspace(new, V, basis, 1.0), new)
    torch.testing.assert_close(subspace(X, V * 0, basis, 1.0) @ basis.T, torch.zeros(2, 2, 2), rtol=0, atol=1e-6)


def test_a_subspace_of_one_direction_is_that_direction_projected_out():
    value, vector = random(3, 5, 8), random(8, seed=1)
    one = subspace(value, torch.zeros(8), (vector / vector.norm())[None], 0.7)
    torch.testing.assert_close(one, project_out(value, vector, 0.7))


def test_a_map_by_hand_is_a_row_times_a_matrix():
    matrix = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    # (1, 2, -3) shifts right to (0, 1, 2).
    assert affine(X, V, matrix, 0.5)[0, 0].tolist() == [2.5, 2.5, 0.0]


ONE = FeatureMap(
    encoder=torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 1.0]]),
    bias=torch.tensor([-0.5, 0.0]),
    threshold=torch.tensor([0.0, 0.5]),
    decoder=torch.tensor([[10.0, 0.0, 0.0], [0.0, 100.0, 0.0]]),
    chosen=torch.tensor([0, 1]),
)


def test_features_by_hand():
    # (1, 2, -3): 0.5, and -1 which is not above its threshold. (0.5, 0, 4): 0, and 4.
    assert active_features(X[0], ONE).tolist() == [[0.5, 0.0], [0.0, 4.0]]
    level = torch.tensor([2.0, 3.0])
    assert clamp_feature_values(X[0], level, ONE, 1.0).tolist() == [[16.0, 302.0, -3.0], [20.5, -100.0, 4.0]]
    assert scale_feature_values(X[0], level, ONE, 0.5).tolist() == [[3.5, 2.0, -3.0], [0.5, 400.0, 4.0]]


def test_features_clamped_at_their_own_value_or_scaled_by_one_stay():
    own = active_features(X, ONE)
    assert torch.equal(clamp_feature_values(X, own, ONE, 1.0), X)
    assert torch.equal(scale_feature_values(X, torch.ones(2), ONE, 1.0), X)


def test_a_constant_addition_to_features_is_the_addition_of_their_decoder_rows():
    value, amount = random(3, 5, 3), torch.tensor([2.0, -1.0])
    raised = clamp_feature_values(value, active_features(value, ONE) + amount, ONE, 1.0)
    torch.testing.assert_close(raised, add(value, amount @ ONE.decoder, 1.0))


def test_promotion_and_force_by_hand():
    z = torch.tensor([1.0, 2.0, 3.0])
    assert promote(z, torch.tensor([1.0, 0.0, -2.0]), 0.5).tolist() == [1.5, 2.0, 2.0]
    assert force(z, torch.tensor([0.5, 0.0, -0.25]), 1.0).tolist() == [3.5, 2.0, 0.75]
    assert force(z, torch.tensor([0.5, 0.0, 0.0]), 0.5).tolist() == [2.25, 2.0, 3.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_strength_zero_changes_no_bit_with_a_matrix_or_features(dtype):
    value = X.to(dtype)
    rows = torch.tensor([0.0, 0.5])[:, None, None]
    for change, vector in (
        (change_of("subspace", torch.eye(3)[:2] * torch.nan), V),
        (change_of("affine", torch.eye(3) * torch.inf), V),
        (change_of("clamp_features", features=ONE), V[:2] * torch.nan),
        (change_of("scale_features", features=ONE), V[:2]),
    ):
        assert change(value, vector, 0.0) is value
        mixed = change(value, vector, rows)
        assert mixed.dtype == dtype
        assert torch.equal(bits(mixed[0]), bits(value[0]))
        assert not torch.equal(mixed[1], value[1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("shape", [(8,), (2, 1, 8)])
def test_one_launch_of_a_gpu_adds_to_the_very_bits(shape, dtype, monkeypatch):
    value, vector = random(2, 5, 8).to(dtype), random(*shape, seed=1)
    with torch.no_grad():
        plain = CHANGES["add"](value, vector, 0.7)
        monkeypatch.setattr("babelscope.interventions._on_gpu", lambda value: True)
        at_once = CHANGES["add"](value, vector, 0.7)
    assert at_once.dtype == dtype and torch.equal(at_once, plain) and not torch.equal(at_once, value)


@pytest.mark.parametrize("kind", ["add", "project_out"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_kernel_s_way_of_a_gpu_gives_the_same_edit(kind, dtype, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    value = torch.randn(2, 5, 8, generator=generator).to(dtype)
    vector = torch.randn(8, generator=generator)
    strength = torch.tensor([[0.0, 0.5, -1.0, 2.0, 0.0]])[..., None].expand(2, 5, 1)
    plain = CHANGES[kind](value, vector, strength)
    monkeypatch.setattr("babelscope.interventions._by_kernel", lambda value, least=0: True)
    by_kernel = CHANGES[kind](value, vector, strength)
    assert torch.equal(by_kernel[:, [0, 4]], value[:, [0, 4]])
    torch.testing.assert_close(by_kernel, plain, rtol=1e-6 if dtype == torch.float32 else 8e-3, atol=1e-6)
    assert not torch.equal(by_kernel, value)
