"""Similarity indices against numpy, scikit-learn and scipy, and on vectors whose relation is known."""

import numpy as np
import pytest
import torch
from scipy.linalg import orthogonal_procrustes
from sentence_cases import made_sentences, noise
from sklearn.cross_decomposition import CCA

from babelscope.errors import LanguageError, MeasurementError
from babelscope.probes import matching_accuracy, neuron_correlation, pwcca, similarity_indices
from babelscope.probes.geometry.representation_similarity import (
    canonical_means,
    canonical_similarity,
    nearest_rotated,
    principal_scores,
    procrustes_map,
)


def pair(n=120, hidden=8, noise=1.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, hidden, generator=generator, dtype=torch.float64)
    mix = torch.randn(hidden, hidden, generator=generator, dtype=torch.float64)
    return x, x @ mix + noise * torch.randn(n, hidden, generator=generator, dtype=torch.float64)


def canonical_by_hand(x, y):
    """Roots of Σxx⁻¹ Σxy Σyy⁻¹ Σyx, and the variates of x of unit length."""
    x, y = (side - side.mean(0) for side in (x.numpy(), y.numpy()))
    matrix = np.linalg.solve(x.T @ x, x.T @ y) @ np.linalg.solve(y.T @ y, y.T @ x)
    roots, vectors = np.linalg.eig(matrix)
    order = np.argsort(-roots.real)
    variates = x @ vectors[:, order].real
    return np.sqrt(roots.real[order]), variates / np.linalg.norm(variates, axis=0), x


@pytest.mark.parametrize("spread", [0.3, 3.0])
def test_canonical_correlations_are_those_of_the_eigenvalue_problem_and_of_scikit_learn(spread):
    x, y = pair(noise=spread)
    rho, variates, centred = canonical_by_hand(x, y)
    assert canonical_similarity(x, y) == pytest.approx(rho.mean(), abs=1e-10)
    weights = np.abs(variates.T @ centred).sum(axis=1)
    assert pwcca(x, y) == pytest.approx((weights * rho).sum() / weights.sum(), abs=1e-8)
    first, second = CCA(n_components=8, max_iter=5000, tol=1e-12).fit_transform(x.numpy(), y.numpy())
    by_sklearn = [np.corrcoef(first[:, k], second[:, k])[0, 1] for k in range(8)]
    assert canonical_similarity(x, y) == pytest.approx(np.mean(by_sklearn), abs=1e-3)


def test_svcca_is_cca_of_the_principal_scores():
    x, y = pair(hidden=12)
    scores = []
    for side in (x.numpy(), y.numpy()):
        u, s, _ = np.linalg.svd(side - side.mean(0), full_matrices=False)
        scores.append(torch.from_numpy(u[:, :5] * s[:5]))
    by_hand = canonical_by_hand(*scores)[0].mean()
    assert canonical_similarity(principal_scores(x, 5), principal_scores(y, 5)) == pytest.approx(by_hand, abs=1e-10)


def test_neuron_correlation_is_numpys_and_a_still_neuron_counts_as_none():
    x, y = pair()
    by_hand = [np.corrcoef(x[:, k].numpy(), y[:, k].numpy())[0, 1] for k in range(8)]
    assert neuron_correlation(x, y) == pytest.approx(np.mean(by_hand), abs=1e-12)
    x[:, 0] = 3.0
    assert neuron_correlation(x, y) == pytest.approx(np.sum(by_hand[1:]) / 8, abs=1e-12)


def test_canonical_similarity_knows_no_rotation_and_neuron_correlation_does():
    x, _ = pair()
    rotation = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64))[0]
    assert canonical_similarity(x, 3 * x @ rotation) == pytest.approx(1, abs=1e-10)
    assert pwcca(x, 3 * x @ rotation) == pytest.approx(1, abs=1e-10)
    assert neuron_correlation(x, x @ rotation) < 0.9 and neuron_correlation(x, 2 * x + 5) == pytest.approx(1)


def test_the_rotation_is_scipys_and_is_fitted_on_other_sentences():
    x, y = pair()
    torch.testing.assert_close(procrustes_map(x, y), torch.from_numpy(orthogonal_procrustes(x.numpy(), y.numpy())[0]))
    wide_x, wide_y = (torch.randn(40, 200, generator=torch.Generator().manual_seed(s)).double() for s in (1, 2))
    centred = [side - side.mean(0) for side in (wide_x, wide_y)]
    assert (
        torch.linalg.matrix_rank(procrustes_map(*centred)) == 39
    )  # not 40: the direction that centring took is no fit
    turned = (wide_x - wide_x.mean(0)) @ procrustes_map(wide_x - wide_x.mean(0), wide_y - wide_y.mean(0))
    by_force = (turned @ (wide_y - wide_y.mean(0)).T).argmax(dim=1) == torch.arange(40)
    assert by_force.double().mean() > 0.9  # fitted on the sentences themselves, noise matches noise
    assert matching_accuracy(wide_x, wide_y, rotated=True) < 0.2


def test_matching_is_mended_by_centring_where_a_shift_and_by_rotation_where_a_turn_was_planted():
    x, _ = pair(n=200, hidden=10)
    generator = torch.Generator().manual_seed(3)
    shift = 8 * torch.randn(10, generator=generator, dtype=torch.float64)
    rotation = torch.linalg.qr(torch.randn(10, 10, generator=generator, dtype=torch.float64))[0]
    shifted = x + shift
    assert matching_accuracy(x, shifted) < 0.7 < matching_accuracy(x, shifted, centred=True) == 1
    turned = x @ rotation + shift
    assert matching_accuracy(x, turned, centred=True) < 0.2 and matching_accuracy(x, turned, rotated=True) == 1
    by_hand = 0
    for i in range(200):
        fit = [j for j in range(200) if j % 2 != i % 2]
        centres = x[fit].mean(0).numpy(), turned[fit].mean(0).numpy()
        r, _ = orthogonal_procrustes(x[fit].numpy() - centres[0], turned[fit].numpy() - centres[1])
        query, keys = (x[i].numpy() - centres[0]) @ r, turned.numpy() - centres[1]
        best = int(np.argmax(keys @ query / np.linalg.norm(keys, axis=1)))
        by_hand += best == int(nearest_rotated(x, turned)[i])
    assert by_hand == 200


def test_the_table_has_the_functions_numbers_and_chance_for_noise():
    vectors = noise(languages=3, depths=2, sentences=80, hidden=24)
    vectors[1, 1] = vectors[0, 1] + 0.2 * vectors[1, 1]
    table = similarity_indices(made_sentences(vectors, ("en", "de", "fr")), directions=6, draws=99, resamples=40)
    x, y = vectors[0, 1].double(), vectors[1, 1].double()
    reduced = principal_scores(x, 6), principal_scores(y, 6)
    for index, value in {
        "svcca": canonical_similarity(*reduced),
        "pwcca": pwcca(*reduced),
        "anc": neuron_correlation(x, y),
        "matching": matching_accuracy(x, y),
        "matching_centred": matching_accuracy(x, y, centred=True),
        "matching_procrustes": matching_accuracy(x, y, rotated=True),
    }.items():
        assert float(table.values(index)[0, 1]) == pytest.approx(value, abs=1e-12), index
        assert float(table.values(index, "p")[0, 1]) == 0.01
        assert (table.values(index, "p")[1] > 0.01).all() and float(table.values(index, "p")[0, 0]) > 0.01
        assert abs(float((table.values(index) - table.values(index, "null"))[1].mean())) < 0.1
    rows = table.rows()
    assert len(rows) == 6 * 2 * 2 and all(row.low <= row.estimate <= row.high for row in rows)
    order = torch.randperm(80, generator=torch.Generator().manual_seed(0))
    nulls = torch.stack([canonical_means(torch.linalg.qr(reduced[0])[0].T @ torch.linalg.qr(reduced[1])[0][order])])
    assert float(nulls) == pytest.approx(canonical_similarity(reduced[0], reduced[1][order]), abs=1e-10)


def test_half_samples_of_neuron_correlation_are_those_of_the_halves():
    vectors = noise(languages=2, depths=1, sentences=40, hidden=6)
    vectors[1] += vectors[0]
    sentences = made_sentences(vectors, ("en", "de"))
    table = similarity_indices(sentences, directions=2, draws=19, resamples=500)
    generator = torch.Generator().manual_seed(9)
    x, y = sentences.at(0)
    parts = [
        neuron_correlation(x[half], y[half])
        for half in (torch.randperm(40, generator=generator)[:20] for _ in range(500))
    ]
    spread = np.quantile(np.array(parts) - np.mean(parts), [0.025, 0.975])
    (cell,) = [cell for cell in table.cells if cell.measure == "anc"]
    assert (cell.interval.low - cell.estimate, cell.interval.high - cell.estimate) == pytest.approx(spread, abs=0.03)


def test_too_little_is_refused():
    with pytest.raises(
        MeasurementError, match="20 sentences came for spaces of 12 and 12 dimensions, which then share"
    ):
        canonical_similarity(noise()[0, 0, :20, :12].double(), noise()[1, 0, :20, :12].double())
    with pytest.raises(MeasurementError, match="3 parallel sentences"):
        similarity_indices(made_sentences(noise(sentences=3)))
    with pytest.raises(LanguageError, match="'fi' was not read"):
        similarity_indices(made_sentences(noise()), against="fi")
