"""The language-identification probe against scikit-learn, chance, and leaks between translations."""

import numpy as np
import pytest
import torch
from scipy.stats import binom
from sentence_cases import made_sentences, noise
from sklearn.linear_model import RidgeClassifier
from sklearn.preprocessing import StandardScaler

from babelscope.errors import MeasurementError
from babelscope.probes.geometry.language_id import language_probe, split_sentences
from babelscope.probes.geometry.ridge import RidgeProbe


@pytest.mark.parametrize("hidden", [10, 90])
def test_outputs_equal_scikit_learns(hidden):
    x = noise(3, 1, 30, hidden)[:, 0].double().reshape(-1, hidden)
    labels = torch.arange(3).repeat_interleave(30)
    x[labels == 1, 0] += 3
    train, test = x[::2], x[1::2]
    scaler = StandardScaler().fit(train)
    witness = RidgeClassifier(alpha=0.1 * len(train)).fit(scaler.transform(train), labels[::2])
    outputs = RidgeProbe(train, test).outputs(labels[::2], 3)
    assert np.abs(2 * outputs.numpy() - 1 - witness.decision_function(scaler.transform(test))).max() < 1e-6
    assert (RidgeProbe(train, test).predict(labels[::2], 3).numpy() == witness.predict(scaler.transform(test))).all()


def test_random_vectors_give_chance():
    right, tested = 0.0, 0
    for seed in range(10):
        found = language_probe(made_sentences(noise(seed=seed)), draws=9, resamples=10, seed=seed)
        right += float(found.accuracy.sum()) * found.n_test * 5
        tested += 2 * found.n_test * 5
    low, high = binom.ppf([0.005, 0.995], tested, 1 / 5)
    assert low <= right <= high


def test_languages_told_by_a_dimension_each_are_found_where_they_are():
    vectors = noise()
    vectors[:, 1, :, :5] += 10 * torch.eye(5)[:, None]
    found = language_probe(made_sentences(vectors), draws=99)
    assert found.accuracy[1] > 0.95 and found.p[1] == 0.01 and found.accuracy[0] < 0.4
    assert abs(float(found.null[1]) - 0.2) < 0.03
    rows = found.rows()
    assert len(rows) == 2 + 5 * 2 and all(row.low <= row.estimate <= row.high for row in rows)


def test_content_gives_no_label_away():
    content = noise(1, 2, 60, 24)
    found = language_probe(made_sentences(content.expand(5, 2, 60, 24) + 1e-3 * noise(seed=1)), draws=9, resamples=10)
    assert float(found.accuracy.max()) < 0.35


def test_permuting_the_languages_permutes_the_recall():
    vectors = noise()
    vectors[:, :, :, :5] += 1.5 * torch.eye(5)[:, None, None]
    order = [3, 0, 4, 2, 1]
    languages = ("en", "de", "fr", "ru", "uk")
    first = language_probe(made_sentences(vectors), draws=1, resamples=10)
    second = language_probe(made_sentences(vectors[order], [languages[k] for k in order]), draws=1, resamples=10)
    assert torch.equal(first.recall[order], second.recall) and 0.4 < float(first.recall.mean()) < 1


def test_a_split_without_a_test_sentence_is_refused():
    assert int(split_sentences(10, test_share=0.3, seed=0).sum()) == 3
    with pytest.raises(MeasurementError, match="at least two sentences in each part"):
        language_probe(made_sentences(noise(5, 1, 4, 6)))
