"""Where translations lie inside a model: counts by hand, and the layer and the area that follow from them."""

import numpy as np
import pytest
import torch
from scipy.linalg import eigh

from babelscope.adaptation.alignment_account import AlignmentAccount, account_of, retrieval
from babelscope.adaptation.alignment_job import alignment_facts
from babelscope.errors import MeasurementError
from babelscope.languages import Language
from babelscope.probes.geometry.sentences import Sentences
from babelscope.sites import Site
from babelscope.steering.directions.subspaces import covariance_distance, nearest_layers
from babelscope.subnetworks import Contrast, ContrastSteps, ParallelPairs


def test_retrieval_counts_both_ways():
    cosine = torch.tensor([[0.9, 0.1, 0.3], [0.2, 0.1, 0.8], [0.95, 0.0, 0.5]], dtype=torch.float64)
    # Rows: 0 finds 0; 1 finds 2; 2 finds 0. Columns: 0 finds 2; 1 finds 0 (the first of equals); 2 finds 1.
    assert retrieval(cosine) == pytest.approx((1 / 3 + 0) / 2)


def test_the_distance_is_that_of_generalised_eigenvalues():
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(40, 6, generator=generator, dtype=torch.float64) * s for s in (1.0, 2.0))
    kx, ky = (np.cov(rows.numpy(), rowvar=False) for rows in (x, y))
    kx, ky = (0.9 * k + 0.1 * np.trace(k) / 6 * np.eye(6) for k in (kx, ky))
    expected = float(np.sqrt((np.log(eigh(ky, kx, eigvals_only=True)) ** 2).sum()))
    assert covariance_distance(x, y) == pytest.approx(expected, rel=1e-10)
    assert covariance_distance(y, x) == pytest.approx(expected, rel=1e-10)
    assert covariance_distance(x, x + 5.0) == pytest.approx(0.0, abs=1e-9)
    with pytest.raises(MeasurementError, match="has no inverse"):
        covariance_distance(x[:3], y, shrinkage=0.0)
    with pytest.raises(MeasurementError, match="expected two or more"):
        covariance_distance(x[:1], y)


@pytest.mark.parametrize(
    ("distances", "expected"), [([9, 3, 1, 2, 8, 1.5], (1, 4)), ([1, 5, 9], (0, 1)), ([9, 8, 1], (2, 3))]
)
def test_the_area_is_the_run_about_the_nearest_layer(distances, expected):
    assert nearest_layers(torch.tensor(distances, dtype=torch.float64)) == range(*expected)


def test_a_layer_where_translations_coincide_is_found():
    """Planted: at layer 1 of three both languages have the same vectors, elsewhere unrelated ones."""
    generator = torch.Generator().manual_seed(1)
    vectors = torch.randn(2, 4, 30, 12, generator=generator)
    vectors[1, 2] = vectors[0, 2] + 0.01 * torch.randn(30, 12, generator=generator)
    sites = (Site(0, "resid_in"), *(Site(layer, "resid_out") for layer in range(3)))
    tags = (Language("en"), Language("fi"))
    sentences = Sentences(tags, tuple(map(str, range(30))), sites, {"mean": vectors, "weighted": vectors})
    account = account_of(sentences, "en")
    assert isinstance(account, AlignmentAccount) and account.best_layer() == 1 and 1 in account.area
    assert account.mexa["fi"].tolist()[1] == account.retrieval["fi"].tolist()[1] == 1
    assert max(account.retrieval["fi"].tolist()[::2]) < 0.3 and abs(float(account.unrelated["fi"][1])) < 0.1
    facts = alignment_facts(account, account, ContrastSteps(Contrast(1), ParallelPairs((), ((),), (), 0)))
    assert facts["layer"] == 1 and facts["retrieval"][0] == account.retrieval["fi"].tolist() == facts["retrieval"][1]
    vectors[:, 2] = 1.0 + 0.001 * vectors[:, 2]
    assert float(account_of(sentences, "en").unrelated["fi"][1]) > 0.99
