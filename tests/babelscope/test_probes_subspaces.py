"""Variance shares, ranks, angles and the language–content split, on planted and on random vectors."""

import numpy as np
import pytest
import torch
from scipy.linalg import subspace_angles
from sentence_cases import made_sentences, noise, with_streams

from babelscope.errors import MeasurementError, SiteError
from babelscope.probes.geometry.subspace_probe import (
    content_share,
    language_share,
    language_subspaces,
    split_effect,
    subspace_angles_between,
)


def two_way(language=3.0, content=2.0, seed=0):
    """Languages in the first four dimensions, content in the next ones, noise in all."""
    vectors = 0.3 * noise(seed=seed)
    vectors[..., :4] += language * noise(5, 1, 1, 4, seed=seed + 1)
    vectors[..., 4:12] += content * noise(1, 1, 60, 8, seed=seed + 2)
    return vectors


def test_shares_equal_the_sums_of_squares_of_a_two_way_table():
    x = two_way()[:, 0].double().numpy()
    mean = x.mean((0, 1))
    language = ((x.mean(1) - mean) ** 2).sum() * 60
    content = ((x.mean(0) - mean) ** 2).sum() * 5
    rest = ((x - x.mean(1, keepdims=True) - x.mean(0, keepdims=True) + mean) ** 2).sum()
    total = ((x - mean) ** 2).sum()
    assert abs(language + content + rest - total) < 1e-9 * total
    assert abs(language_share(torch.from_numpy(x)) - language / total) < 1e-12
    assert abs(content_share(torch.from_numpy(x)) - content / total) < 1e-12


def test_random_vectors_hold_neither_language_nor_content():
    found = language_subspaces(made_sentences(noise(depths=6)), draws=99)
    for shares in (found.language, found.content):
        assert sum(one.p <= 0.05 for one in shares) <= 2
        assert all(abs(one.estimate - one.null) < 0.03 for one in shares)
    assert all(abs(effect.accuracy - 0.2) < 0.12 for effect in found.split)
    assert abs(float(found.overlap.mean()) - found.floor) < 0.03


def test_a_planted_language_subspace_is_taken_out_and_content_stays():
    effect = split_effect(two_way()[:, 0].double(), torch.arange(60) % 2 == 0, 4, seed=0)
    assert effect.accuracy > 0.95 and effect.accuracy_without < 0.45 and effect.accuracy_random > 0.95
    assert effect.mexa_without > 0.95 and effect.mexa_without >= effect.mexa > effect.mexa_random - 0.1
    assert 0.5 < effect.variance < 1
    found = language_subspaces(made_sentences(two_way()), draws=19)
    assert found.split_rank == 4 and int(found.rank_means[0]) <= 4 and int(found.rank[0, 0]) <= 9
    assert all(one.p == 0.05 and one.interval.low < one.estimate < one.interval.high for one in found.language)


def test_angles_are_scipys_and_a_language_is_nearest_to_itself():
    vectors = noise(3, 1, 60, 20)
    for k in range(3):
        vectors[k, ..., 5 * k : 5 * k + 3] *= 6
    found = language_subspaces(made_sentences(vectors, ("en", "de", "fr")), components=3, draws=9)
    own, other = found.overlap[0].diagonal(), found.overlap[0][~torch.eye(3, dtype=torch.bool)]
    assert float(own.min()) > 0.9 and float(other.max()) < 0.2
    x = vectors[:, 0].double()
    angles = subspace_angles_between(x[:, :30], x[:, 30:], 3)
    bases = [np.linalg.svd(part - part.mean(0))[2][:3].T for part in (x[0, :30].numpy(), x[1, 30:].numpy())]
    assert np.abs(np.sort(subspace_angles(*bases)) - angles[0, 1].numpy()).max() < 1e-10


def test_rows_are_tidy():
    found = language_subspaces(made_sentences(two_way()), draws=19).rows()
    assert len(found) == 2 * (2 + 5 + 2)
    assert all(row.site for row in found)
    shares = [row for row in found if row.claim.startswith("share")]
    assert all(row.low <= row.estimate <= row.high for row in shares)


def test_massive_units_and_first_tokens_are_left_out_where_they_would_dominate():
    quiet, other = noise(depths=2, hidden=60, seed=3), noise(depths=2, hidden=60, seed=4)
    loud, rest = quiet.clone(), other.clone()
    for value in (loud, rest):
        value[:, 1, :, 7] = 90 * noise(5, 1, 60, 1, seed=5)[:, 0, :, 0] + 300
    rest[2, :, 11] = float("nan")  # a sentence of one token in one language
    sentences = with_streams(loud, rest)
    found = language_subspaces(sentences, draws=9)
    assert found.forms == ("whole", "ordinary") and found.sentences == 59
    some, kept = torch.arange(60) != 11, torch.arange(60) != 7
    by_hand = torch.zeros(5, 2, 59, 60)
    by_hand[:, 0], by_hand[:, 1, :, kept] = quiet[:, 0, some], other[:, 1, some][..., kept]
    plain = language_subspaces(made_sentences(by_hand), draws=9)
    assert [one.estimate for one in found.language] == [one.estimate for one in plain.language]
    assert [one.estimate for one in found.content] == [one.estimate for one in plain.content]
    assert torch.equal(found.rank, plain.rank) and torch.equal(found.overlap, plain.overlap)
    whole = language_subspaces(sentences, form="whole", draws=9)
    assert whole.forms == ("whole", "whole") and int(whole.rank[:, 1].max()) == 1 < int(found.rank[:, 1].min())
    notes = {row.site: row.note for row in found.rows() if row.claim.startswith("share")}
    assert notes == {"0.resid_in": "", "0.resid_out": "without first tokens and massive units"}
    with pytest.raises(SiteError, match="were not kept there"):
        language_subspaces(made_sentences(quiet), form="ordinary")


def test_too_few_sentences_are_refused():
    with pytest.raises(MeasurementError, match="6 parallel sentences"):
        language_subspaces(made_sentences(noise(sentences=6)))
