"""Scripts two by two, and scripts among neighbours: planted, random, against scikit-learn, and on encoders."""

import numpy as np
import pytest
import torch
from conftest import tiny_tokenizer
from sklearn.linear_model import RidgeClassifier
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler
from transformers import BertConfig, BertForMaskedLM, MT5Config, MT5EncoderModel, XLMRobertaConfig, XLMRobertaModel

from babelscope.errors import MeasurementError
from babelscope.probes.geometry.embeddings import embedding_geometry
from babelscope.probes.geometry.entries import embedding_tables
from babelscope.probes.geometry.ridge import PENALTY
from babelscope.probes.geometry.writing_systems import neighbour_scripts, pair_separability

MEMBERS = {"latin": list(range(120)), "cyrillic": list(range(120, 200)), "greek": list(range(200, 240))}


def table(planted=0.0, seed=0):
    weight = torch.randn(240, 30, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    for at, entries in enumerate(MEMBERS.values()):
        weight[entries, at] += planted
    return weight


def pairs_of(weight, seed=0, draws=19, members=MEMBERS):
    return pair_separability("input", weight, members, draws=draws, generator=torch.Generator().manual_seed(seed))


def test_planted_scripts_are_told_apart_two_by_two_and_random_ones_by_chance():
    planted = pairs_of(table(6.0), draws=99)
    assert planted.accuracy > 0.97 and planted.p == 0.01 and abs(planted.null - 0.5) < 0.05 and planted.n == 3
    assert planted.interval.low <= planted.accuracy <= planted.interval.high
    random = [pairs_of(table(seed=seed), seed=seed, draws=9) for seed in range(20)]
    assert abs(np.mean([result.accuracy for result in random]) - 0.5) < 0.04
    one_apart = table()
    one_apart[MEMBERS["greek"], 0] += 8
    by_script = dict(zip(MEMBERS, pairs_of(one_apart).by_script, strict=True))
    assert by_script["greek"] > 0.95 and by_script["latin"] < 0.85


def test_a_pair_is_scikit_learns_classifier_on_as_many_entries_of_both():
    members = {"latin": MEMBERS["latin"], "greek": MEMBERS["greek"]}
    weight = table(1.0)
    result = pair_separability("input", weight, members, draws=1, generator=torch.Generator().manual_seed(3))
    generator = torch.Generator().manual_seed(3)
    sides = [torch.tensor(side)[torch.randperm(len(side), generator=generator)[:40]] for side in members.values()]
    test, train = (
        np.concatenate([weight[side[part]].numpy() for side in sides]) for part in (slice(12), slice(12, None))
    )
    scaler = StandardScaler().fit(train)
    classifier = RidgeClassifier(alpha=PENALTY * len(train)).fit(scaler.transform(train), np.repeat([0, 1], 28))
    assert result.accuracy == pytest.approx(
        (classifier.predict(scaler.transform(test)) == np.repeat([0, 1], 12)).mean()
    )


def test_scripts_nearby_are_counted_as_scikit_learns_neighbours():
    weight = table(2.0)
    result = neighbour_scripts(
        "input", weight, MEMBERS, most=999, nearest=7, generator=torch.Generator().manual_seed(0)
    )
    script = np.repeat(np.arange(3), [120, 80, 40])
    search = NearestNeighbors(n_neighbors=8, metric="cosine").fit(weight.numpy())
    around = script[search.kneighbors(weight.numpy())[1][:, 1:]]
    assert result.mean == pytest.approx(np.mean([len(set(row)) for row in around]), abs=1e-9) and result.n == 240
    share = np.array([120, 80, 40]) / 240
    assert result.null == pytest.approx((1 - (1 - share) ** 7).sum()) and result.mean < result.null
    random = neighbour_scripts(
        "input", table(), MEMBERS, most=999, nearest=7, generator=torch.Generator().manual_seed(0)
    )
    assert abs(random.mean - random.null) < 0.1


def test_one_script_is_refused():
    with pytest.raises(MeasurementError, match="1 script came"):
        pairs_of(table(), members={"latin": MEMBERS["latin"]})


def encoder(kind):
    small = {"vocab_size": 300, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if kind == "mt5":
            return MT5EncoderModel(MT5Config(vocab_size=300, d_model=32, d_kv=8, d_ff=16, num_layers=1, num_heads=2))
        if kind == "xlm-r":
            return XLMRobertaModel(XLMRobertaConfig(**small, intermediate_size=16))
        return BertForMaskedLM(BertConfig(**small, intermediate_size=16, tie_word_embeddings=False))


@pytest.mark.parametrize(("kind", "tables"), [("bert", 2), ("xlm-r", 1), ("mt5", 1)])
def test_encoders_have_the_tables_that_transformers_says(kind, tables):
    model = encoder(kind)
    found = embedding_tables(model)
    assert len(found) == tables and torch.equal(found["input"], model.get_input_embeddings().weight.double())
    result = embedding_geometry(model, ScriptTokenizer(), fewest=5, draws=3)
    assert len(result.pairs) == len(result.scripts_nearby) == tables
    claims = [row.claim for row in result.rows()]
    assert "scripts of entries are linearly separable two by two" in claims
    assert "different scripts among the 50 nearest entries" in claims


class ScriptTokenizer:
    """Entries of three scripts, one letter each."""

    def __new__(cls):
        tokenizer = tiny_tokenizer()
        letters = [chr(first + k) for first in (0x0430, 0x03B1, 0x05D0) for k in range(12)]
        tokenizer.add_tokens(letters)
        return tokenizer
