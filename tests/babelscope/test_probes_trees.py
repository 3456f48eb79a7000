"""Similarity trees against scipy, planted families, and chance."""

import numpy as np
import pytest
import torch
from scipy.cluster.hierarchy import cophenet, linkage
from scipy.spatial.distance import squareform
from scipy.stats import binom, spearmanr
from sentence_cases import FIVE, made_sentences, noise

from babelscope.errors import LanguageError, MeasurementError
from babelscope.languages.lineage import LINEAGE, Lineage, lineage_of
from babelscope.probes.geometry.trees import permutations_within, related, similarity_tree

EIGHT = ("en", "de", "es", "fr", "fi", "et", "tr", "tt")


def planted(seed=0):
    """Languages of one branch share a direction, those of one family a smaller one."""
    vectors = noise(8, 1, 30, 40, seed=seed)
    for k, tag in enumerate(EIGHT):
        names = sorted({LINEAGE[one].branch for one in EIGHT}), sorted({LINEAGE[one].family for one in EIGHT})
        vectors[k, ..., names[0].index(LINEAGE[tag].branch)] += 5
        vectors[k, ..., 20 + names[1].index(LINEAGE[tag].family)] += 4
    return vectors


def test_similarity_and_tree_equal_scipys():
    vectors = noise()
    found = similarity_tree(made_sentences(vectors), draws=99)
    unit = vectors / vectors.norm(dim=-1, keepdim=True)
    witness = np.einsum("ash,bsh->abs", unit[:, 1].double(), unit[:, 1].double()).mean(axis=2)
    assert np.abs(found.similarity[1].numpy() - witness).max() < 1e-6
    tree = linkage(squareform(1 - found.similarity[1].numpy(), checks=False), method="average")
    assert np.abs(cophenet(found.linkage(1)) - cophenet(tree)).max() < 1e-12
    pairs = np.triu_indices(5, 1)
    kin = related([LINEAGE[tag] for tag in FIVE])[pairs]
    assert abs(found.family[1].correlation - spearmanr(found.similarity[1].numpy()[pairs], kin).statistic) < 1e-12


def test_planted_families_are_found():
    found = similarity_tree(made_sentences(planted(), EIGHT), draws=999)
    assert found.family[0].correlation > 0.7 and found.family[0].p < 0.01
    text = found.newick(0)
    assert all(f"({a}:" in text or f"({b}:" in text for a, b in (("en", "de"), ("es", "fr"), ("tr", "tt")))
    assert text.count("(") == 7 and text.endswith(";")


def test_random_vectors_give_no_family():
    p = [similarity_tree(made_sentences(noise(8, 1, 20, 16, seed=s), EIGHT), draws=99).family[0].p for s in range(60)]
    assert sum(value <= 0.05 for value in p) <= binom.ppf(0.995, 60, 0.05)
    assert sum(value <= 0.5 for value in p) >= binom.ppf(0.005, 60, 0.5)


def test_what_script_alone_explains_does_not_pass_within_scripts():
    vectors = noise(6, 1, 30, 24)
    vectors[:3, ..., 0] += 8
    vectors[3:, ..., 1] += 8
    found = similarity_tree(made_sentences(vectors, ("en", "es", "fi", "ru", "tt", "bg")), draws=999)
    assert found.script[0].p < 0.11 and found.script[0].correlation > 0.8
    assert found.family[0].p_within_scripts > 0.05
    assert len(found.rows()) == 2


def test_permutations_within_groups_keep_the_groups():
    groups = ["a", "b", "a", "a", "b", "c"]
    orders = permutations_within(groups, draws=200, generator=torch.Generator().manual_seed(0))
    assert len({tuple(row) for row in orders.tolist()}) == 12
    for row in orders.tolist():
        assert [groups[place] for place in row] == groups and sorted(row) == list(range(6))


def test_the_table_has_every_language_of_the_corpus_once():
    tags = "ar bg ca cs cy de en eo es et eu fa fi fr hi hu id it ja ko mt nl pl pt ru sw tr tt uk vi zh"
    assert len(set(tags.split())) == 31 and set(tags.split()) <= set(LINEAGE)
    assert lineage_of(["zh-Hant", "ru-Latn"]) == {"zh-Hant": LINEAGE["zh"], "ru-Latn": LINEAGE["ru"]}
    assert related([LINEAGE[tag] for tag in ("ru", "uk", "en", "fi")])[0].tolist() == [2, 2, 1, 0]


def test_what_can_not_be_tested_is_refused():
    with pytest.raises(LanguageError, match="at least 4 languages"):
        similarity_tree(made_sentences(noise(2), ("en", "de")))
    with pytest.raises(LanguageError, match="no lineage is known for mis-Geor"):
        similarity_tree(made_sentences(noise(4), ("en", "de", "fr", "mis-Geor")))
    tags, own = ("en", "de", "fr", "mis-Geor"), {"mis-Geor": Lineage("Kartvelian", "Karto-Zan")}
    assert similarity_tree(made_sentences(noise(4), tags), lineage=own, draws=9).lineage["mis-Geor"]
    with pytest.raises(MeasurementError, match="related alike"):
        similarity_tree(made_sentences(noise(4), ("en", "fi", "tr", "ja")), draws=9)
