"""Subspaces against published constructions and scipy."""

import numpy as np
import pytest
import torch
from scipy.linalg import subspace_angles

from babelscope.errors import MeasurementError
from babelscope.steering.directions.subspaces import (
    components_for,
    language_subspace,
    principal_angles,
    principal_components,
    random_subspace,
    without_subspace,
)


def rows(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def common_specific_split(means, rank):
    """The published algorithm, step by step: mean, low rank, common vector by the pseudo-inverse, second SVD."""
    m = means.T
    ones = np.ones((m.shape[1], 1))
    mean = m @ ones / len(ones)
    u, s, vt = np.linalg.svd(m - mean @ ones.T, full_matrices=False)
    low = mean @ ones.T + u[:, :rank] * s[:rank] @ vt[:rank]
    common = np.linalg.pinv(low).T @ ones
    common /= (common**2).sum()
    u, _, _ = np.linalg.svd(low - common @ ones.T, full_matrices=False)
    return u[:, :rank].T, common[:, 0]


@pytest.mark.parametrize("rank", [1, 3, 5])
def test_the_span_is_that_of_the_published_split(rank):
    means = rows(6, 20)
    basis = language_subspace(means, rank).numpy()
    published, common = common_specific_split(means.numpy(), rank)
    assert np.abs(basis @ basis.T - np.eye(rank)).max() < 1e-12
    assert np.abs(basis.T @ basis - published.T @ published).max() < 1e-10
    assert np.abs(basis @ common).max() < 1e-10


def test_without_their_subspace_all_languages_have_one_mean():
    means = rows(6, 20)
    left = without_subspace(means, language_subspace(means))
    assert language_subspace(means).shape == (5, 20)
    assert (left - left[0]).abs().max() < 1e-12
    assert torch.allclose(without_subspace(left, language_subspace(means)), left, atol=1e-12)


def test_a_planted_direction_is_found_and_permuting_languages_changes_nothing():
    means = torch.zeros(3, 4, dtype=torch.float64)
    means[:, 2] = torch.tensor([-1.0, 2.0, 5.0])
    assert torch.allclose(language_subspace(means), torch.tensor([[0.0, 0, 1, 0]], dtype=torch.float64))
    means = rows(5, 9)
    one, other = language_subspace(means, 2), language_subspace(means[[3, 1, 4, 0, 2]], 2)
    assert torch.allclose(one, other, atol=1e-10)


def test_a_rank_that_is_not_there_is_refused():
    with pytest.raises(MeasurementError, match="at least two"):
        language_subspace(rows(1, 4))
    with pytest.raises(MeasurementError, match="3 languages differ in 2 directions"):
        language_subspace(rows(3, 9), 3)
    with pytest.raises(MeasurementError, match="rank 0 was asked for"):
        language_subspace(rows(3, 9), 0)
    with pytest.raises(MeasurementError, match="differ in 0 directions"):
        language_subspace(torch.ones(3, 4, dtype=torch.float64))
    with pytest.raises(MeasurementError, match="NaN"):
        language_subspace(torch.full((2, 3), float("nan"), dtype=torch.float64))


def test_angles_equal_scipys():
    one, other = random_subspace(3, 8, seed=0), random_subspace(2, 8, seed=1)
    witness = np.sort(subspace_angles(one.T.numpy(), other.T.numpy()))
    assert np.abs(principal_angles(one, other).numpy() - witness).max() < 1e-12
    near = torch.linalg.qr((one + 1e-9 * random_subspace(3, 8, seed=2)).T)[0].T
    assert 0 < principal_angles(one, near).max() < 1e-8


def test_components_hold_the_share_by_hand():
    variance = torch.tensor([6.0, 3.0, 0.5, 0.5], dtype=torch.float64)
    assert [components_for(variance, share) for share in (0.5, 0.6, 0.9, 0.91, 1.0)] == [1, 1, 2, 3, 4]
    assert components_for(torch.zeros(3, dtype=torch.float64)) == 0


def test_components_are_those_of_the_covariance():
    found = rows(30, 5)
    basis, variance = principal_components(found, 2)
    witness, vectors = np.linalg.eigh(np.cov(found.numpy().T))
    assert np.abs(variance.numpy() - witness[::-1]).max() < 1e-12
    assert np.abs(np.abs(basis.numpy() @ vectors[:, ::-1][:, :2]) - np.eye(2)).max() < 1e-10
