"""Distances between languages by hand, Mantel's tests against numpy and planted tables."""

import numpy as np
import pytest
from scipy.stats import rankdata, spearmanr
from sentence_cases import made_sentences, noise

from babelscope.errors import LanguageError, MeasurementError
from babelscope.languages import parse_languages
from babelscope.languages.uriel import Languoid
from babelscope.probes import read_words, similarity_tree
from babelscope.probes.geometry import language_distances
from babelscope.probes.geometry.language_distances import (
    distance_rows,
    distance_tables,
    distance_test,
    edit_distance,
    feature_distance,
    genetic_distance,
    great_circle_km,
    lexical_distance,
)

TAGS = parse_languages(["en", "de", "fr", "es", "ru", "uk", "fi"])


def symmetric(seed, n=8):
    table = np.random.default_rng(seed).random((n, n))
    table = (table + table.T) / 2
    np.fill_diagonal(table, 0)
    return table


def test_single_distances_are_by_hand():
    pairs = ("kitten", "sitting"), ("", "abc"), ("a", "a"), ("flaw", "lawn")
    assert [edit_distance(*pair) for pair in pairs] == [3, 3, 0, 2]
    assert genetic_distance(("A", "B", "C"), ("A", "B", "D")) == pytest.approx(1 - 2 / 3)
    assert genetic_distance((), ("A",)) == 1
    paris, london = Languoid("", 48.8566, 2.3522, ()), Languoid("", 51.5074, -0.1278, ())
    assert great_circle_km(paris, london) == pytest.approx(343.6, abs=1)
    x, y = np.array([1.0, 0.0, np.nan, 1.0]), np.array([1.0, 1.0, 1.0, np.nan])
    assert feature_distance(x, y) == pytest.approx(1 - 1 / np.sqrt(2)) and np.isnan(feature_distance(None, y))


def test_words_of_kin_are_nearer():
    words = read_words("reference")
    russian_ukrainian, russian_finnish = (lexical_distance(words, TAGS[4], tag) for tag in (TAGS[5], TAGS[6]))
    assert russian_ukrainian < 0.6 < russian_finnish
    two = {"sun": {TAGS[2]: "soleil", TAGS[3]: "sol"}, "cat": {TAGS[2]: "chat", TAGS[3]: "gato"}}
    assert lexical_distance(two, TAGS[2], TAGS[3]) == pytest.approx((3 / 6 + 3 / 4) / 2)


def test_a_test_is_spearmans_and_the_partial_one_that_of_residuals():
    similarity, distance, rival = symmetric(0), symmetric(1), symmetric(2)
    found = distance_test(similarity, distance, rival, draws=199, seed=0)
    upper = np.triu_indices(8, 1)
    assert found.correlation == pytest.approx(spearmanr(similarity[upper], -distance[upper]).statistic, abs=1e-12)
    ranks = [rankdata(side) for side in (similarity[upper], -distance[upper], rival[upper])]
    r = np.corrcoef(ranks)
    partial = (r[0, 1] - r[0, 2] * r[1, 2]) / np.sqrt((1 - r[0, 2] ** 2) * (1 - r[1, 2] ** 2))
    assert found.partial == pytest.approx(partial, abs=1e-10)
    assert found.p > 0.05


def test_a_planted_distance_is_found_and_one_that_only_follows_its_rival_is_not():
    distance = symmetric(1)
    planted = distance_test(1 - distance + 0.05 * symmetric(5), distance, symmetric(2), draws=499, seed=0)
    assert planted.p == planted.partial_p == 1 / 500 and planted.partial > 0.9
    rival = symmetric(3)
    follower = distance_test(rival + 0.3 * symmetric(6), 1 - rival + 0.3 * symmetric(7), rival, draws=499, seed=0)
    assert follower.p < 0.01 and follower.partial < follower.correlation / 2


def test_tables_are_those_that_can_be_had(monkeypatch):
    monkeypatch.setattr(language_distances, "uriel_there", lambda: False)
    assert set(distance_tables(TAGS, read_words("reference"))) == {"lexical"} and not distance_tables(TAGS)
    tree = similarity_tree(made_sentences(noise(7), TAGS), draws=9)
    rows = distance_rows(tree, read_words("reference"), draws=19)
    assert len(rows) == 2 and {row.claim for row in rows} == {"similarity follows lexical nearness"}
    with pytest.raises(LanguageError, match="3 languages came"):
        distance_tables(TAGS[:3])
    with pytest.raises(MeasurementError, match="equally far"):
        distance_test(symmetric(0), np.ones((8, 8)), symmetric(1), draws=9, seed=0)


def test_all_tables_are_there_with_the_data():
    pytest.importorskip("urielplus")
    tables = distance_tables(TAGS, read_words("reference"))
    assert set(tables) >= {"lexical", "genetic", "geographic", "syntax", "inventory"}
    ru, uk, fi, en = (TAGS.index(tag) for tag in ("ru", "uk", "fi", "en"))
    assert tables["genetic"][ru, uk] < tables["genetic"][ru, en] < tables["genetic"][ru, fi] == 1
    assert 500 < tables["geographic"][ru, uk] < 2500
