"""Separability, neighbours and translations in the embeddings: planted, random, and against scikit-learn."""

import numpy as np
import pytest
import torch
from conftest import tiny_model, tiny_tokenizer
from scipy.stats import binom
from sklearn.metrics import balanced_accuracy_score
from sklearn.neighbors import NearestNeighbors

from babelscope import load_corpus
from babelscope.errors import MeasurementError
from babelscope.probes.geometry.embeddings import embedding_geometry
from babelscope.probes.geometry.neighbours import same_script_neighbours, translation_neighbours
from babelscope.probes.geometry.separability import mean_recall, separate
from babelscope.probes.lens.word_lists import indicative_tokens

CLASSES = {"latin": list(range(120)), "cyrillic": list(range(120, 200)), "greek": list(range(200, 240))}
WORDS = {
    "cat": {"en": "cat", "de": "Katze"},
    "no": {"en": "no", "de": "nein"},
    "dog": {"en": "dog", "de": "Hund"},
    "house": {"en": "house", "de": "Haus"},
}


def table(planted=0.0, seed=0):
    weight = torch.randn(240, 30, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    for at, own in enumerate(CLASSES.values()):
        weight[own, at] += planted
    return weight


def split(weight, seed=0, draws=19):
    generator = torch.Generator().manual_seed(seed)
    return separate("input", "script", weight, CLASSES, most=2000, draws=draws, generator=generator)


def test_random_entries_give_chance():
    found = [split(table(seed=s), seed=s, draws=9) for s in range(20)]
    right = sum(one.accuracy for one in found) / len(found)
    spread = 3 * 0.5 / np.sqrt(20 * 12 * 3)
    assert abs(right - 1 / 3) < spread and all(one.n == 72 for one in found)
    assert sum(one.p <= 0.1 for one in found) <= binom.ppf(0.995, 20, 0.1)


def test_planted_scripts_are_separable_and_near_each_other():
    found = split(table(planted=6.0), draws=99)
    assert found.accuracy > 0.95 and found.p == 0.01 and abs(found.null - 1 / 3) < 0.05
    assert found.interval.low <= found.accuracy <= found.interval.high
    generator = torch.Generator().manual_seed(0)
    near = same_script_neighbours("input", table(6.0), CLASSES, most=50, nearest=5, draws=20, generator=generator)
    assert [one.script for one in near] == list(CLASSES) and all(one.share > one.null + 0.3 for one in near)
    assert near[2].null == 39 / 239 and near[2].n == 40


def test_recall_and_neighbours_equal_scikit_learns():
    truth = torch.arange(90) % 3
    guess = torch.randint(0, 3, (90,), generator=torch.Generator().manual_seed(0))
    assert abs(float(mean_recall(guess == truth, truth, 3)) - balanced_accuracy_score(truth, guess)) < 1e-12
    weight, generator = table(2.0), torch.Generator().manual_seed(0)
    near = same_script_neighbours("input", weight, CLASSES, most=999, nearest=7, draws=20, generator=generator)
    script = np.repeat(np.arange(3), [120, 80, 40])
    search = NearestNeighbors(n_neighbors=8, metric="cosine").fit(weight.numpy())
    witness = script[search.kneighbors(weight.numpy())[1][:, 1:]] == script[:, None]
    for at, one in enumerate(near):
        assert abs(one.share - witness[script == at].mean()) < 1e-6


def test_a_planted_translation_is_the_nearest_word(reference):
    tokenizer = reference[1]
    weight = torch.randn(10240, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert translation_neighbours("input", weight, tokenizer, WORDS).share < 0.8
    ids = {
        (concept, tag): tokenizer(f" {word}", add_special_tokens=False)["input_ids"]
        for concept, by_tag in WORDS.items()
        for tag, word in by_tag.items()
    }
    used = [token for own in ids.values() for token in own]
    for (concept, _), own in ids.items():
        alone = next(token for token in own if used.count(token) == 1)
        weight[alone] = len(own) * 50 * torch.eye(40, dtype=torch.float64)[list(WORDS).index(concept)]
    found = translation_neighbours("input", weight, tokenizer, WORDS)
    assert found.share == 1.0 and found.n == 8 and found.null == 0.25


def test_the_reference_model_has_one_table_whose_scripts_lie_apart(reference):
    model, tokenizer = reference
    tokens = indicative_tokens(tokenizer, load_corpus("reference", split="train"))
    found = embedding_geometry(model, tokenizer, tokens=tokens, words=WORDS, most=150, draws=9)
    assert found.tied and len(found.separability) == 2
    assert all(one.accuracy > 0.5 and one.p == 0.1 for one in found.separability)
    assert {"en", "fi"} <= set(found.separability[1].classes) and "ru" not in found.separability[1].classes
    assert all(one.share > one.null for one in found.neighbours)
    assert len(found.rows()) == 2 + len(found.neighbours) + 1 + 2


def test_two_tables_are_measured_where_they_differ(reference):
    model = tiny_model("llama")
    assert model.get_input_embeddings().weight.data_ptr() != model.get_output_embeddings().weight.data_ptr()
    with pytest.raises(MeasurementError, match="1 script has 30 entries"):
        embedding_geometry(model, tiny_tokenizer())
    with pytest.raises(MeasurementError, match="expected two of each"):
        translation_neighbours("input", table(), reference[1], {"cat": {"en": "cat", "de": "Katze"}})
