"""Alignment measures against numpy in float64, chance, and their invariances."""

import numpy as np
import pytest
import torch
from scipy.stats import binom
from sentence_cases import made_sentences, mexa_by_hand, noise

from babelscope.errors import LanguageError, MeasurementError
from babelscope.probes.geometry.alignment import cosine_matrix, language_alignment, linear_cka, mexa


def pair(n=40, hidden=12, seed=0, noise=1.0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, hidden, generator=generator, dtype=torch.float64)
    return x, x + noise * torch.randn(n, hidden, generator=generator, dtype=torch.float64)


def cka_by_hand(x, y):
    """With an explicit centring matrix and the Hilbert–Schmidt criterion."""
    h = np.eye(len(x)) - 1 / len(x)
    hsic = lambda a, b: np.trace(a @ a.T @ h @ b @ b.T @ h)  # noqa: E731
    return hsic(x, y) / np.sqrt(hsic(x, x) * hsic(y, y))


@pytest.mark.parametrize("spread", [0.3, 1.0, 3.0])
def test_measures_equal_numpys(spread):
    x, y = pair(noise=spread)
    assert mexa(x, y) == mexa_by_hand(x.numpy(), y.numpy())
    assert abs(linear_cka(x, y) - cka_by_hand(x.numpy(), y.numpy())) < 1e-12


def test_the_table_holds_the_same_numbers():
    vectors = noise(3, 2, 30, 8)
    vectors[1:] += vectors[:1]
    found = language_alignment(made_sentences(vectors, ("en", "de", "fr")), draws=19, resamples=20)
    assert found.pairs == (("en", "de"), ("en", "fr"))
    for row, other in enumerate((1, 2)):
        for depth in range(2):
            x, y = (vectors[k, depth].double().numpy() for k in (0, other))
            assert abs(float(found.values("mexa")[row, depth]) - mexa_by_hand(x, y)) < 1e-6
            assert abs(float(found.values("cka")[row, depth]) - cka_by_hand(x, y)) < 1e-6
            cosine = (x * y).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)
            assert abs(float(found.values("cosine")[row, depth]) - cosine.mean()) < 1e-6
    rows = found.rows()
    assert len(rows) == 4 * 2 * 2 and {row.site for row in rows} == {"0.resid_in", "0.resid_out"}
    assert all(row.low <= row.estimate <= row.high for row in rows)


def test_random_vectors_give_chance():
    n, draws = 40, 400
    hits = sum(round(mexa(*(noise(2, 1, n, 16, seed=s)[:, 0].double())) * n) for s in range(draws))
    low, high = binom.ppf([0.005, 0.995], n * draws, 1 / (2 * n - 1))
    assert low <= hits <= high
    found = language_alignment(made_sentences(noise(5, 3, 60, 24)), against=None, draws=199, resamples=20)
    for measure in ("mexa", "cka", "cosine"):
        low_p = int((found.values(measure, "p") <= 0.05).sum())
        assert low_p <= binom.ppf(0.995, 30, 0.05)
        assert (found.values(measure) - found.values(measure, "null")).mean().abs() < 0.01


def test_a_planted_translation_is_found_at_its_depth_only():
    vectors = noise(3, 2, 40, 16)
    vectors[:, 1] = noise(1, 1, 40, 16, seed=5)[0] + 0.2 * vectors[:, 1]
    found = language_alignment(made_sentences(vectors, ("en", "de", "fr")), draws=99, resamples=50)
    assert (found.values("mexa")[:, 1] > 0.9).all() and (found.values("mexa")[:, 0] < 0.2).all()
    assert (found.values("cka", "p")[:, 1] == 0.01).all() and (found.values("cka", "p")[:, 0] > 0.01).all()


def test_measures_do_not_change_under_rotation_scale_and_a_common_order():
    x, y = pair()
    rotation = torch.linalg.qr(torch.randn(12, 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64))[0]
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(2))
    for measure in (mexa, linear_cka):
        value = measure(x, y)
        assert abs(measure(3 * x @ rotation, 3 * y @ rotation) - value) < 1e-12
        assert abs(measure(x[order], y[order]) - value) < 1e-12
        assert abs(measure(x, x) - 1) < 1e-12
    assert abs(linear_cka(x, 5 * x @ rotation) - 1) < 1e-12


def test_a_duplicated_sentence_fails_on_both_rows():
    x, _ = pair(noise=0.0)
    x[1] = x[0]
    assert mexa(x, x) == 38 / 40


def test_duplicates_fail_wherever_they_stand_and_however_the_product_ends_their_rows():
    for seed in range(60):
        rng = np.random.default_rng(seed)
        n, hidden = int(rng.integers(20, 130)), int(rng.integers(8, 260))
        x, y = pair(n=n, hidden=hidden, seed=seed, noise=0.01)
        one, other = rng.permutation(n)[:2]
        x[other], y[other] = x[one], y[one]
        assert mexa(x, y) == (n - 2) / n


def test_cosines_do_not_depend_on_the_unit_of_length():
    x, y = pair()
    whole = cosine_matrix(x, y)
    for scale in (1e-100, 1e-13, 1e100):
        torch.testing.assert_close(cosine_matrix(x * scale, y / scale), whole, rtol=1e-12, atol=1e-14)


def test_a_zero_vector_is_no_neighbour():
    x, y = pair(noise=0.1)
    x[3] = 0
    assert cosine_matrix(x, y)[3].abs().max() == 0
    assert 0.9 < mexa(x, y) < 1


def test_too_little_is_refused():
    with pytest.raises(MeasurementError, match="3 parallel sentences"):
        language_alignment(made_sentences(noise(5, 1, 3, 4)))
    with pytest.raises(LanguageError, match="'fi' was not read"):
        language_alignment(made_sentences(noise()), against="fi")
