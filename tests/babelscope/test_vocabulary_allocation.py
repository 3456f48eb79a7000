"""Average rank and overlap of vocabularies, by hand, against scipy, and on text whose overlap is known."""

import warnings

import numpy as np
import pytest
from conftest import tiny_tokenizer
from scipy.spatial.distance import jensenshannon

from babelscope.errors import CorpusError
from babelscope.figures.probes_geometry import language_pair_map
from babelscope.vocabulary import vocabulary_allocation
from babelscope.vocabulary.allocation import average_rank, count_divergence

TEXTS = {
    "en": ["the cat sat on the mat", "a dog ran", "the tree is tall", "rain fell at night"],
    "de": ["die Katze lag auf der Matte", "ein Hund lief", "der Baum ist hoch", "nachts fiel Regen"],
    "ru": ["кошка сидела на ковре", "собака бежала", "дерево высокое", "ночью шёл дождь"],
}


def counts_of(lines):
    tokenizer = tiny_tokenizer()
    return np.bincount(
        [token for line in lines for token in tokenizer(line, add_special_tokens=False).input_ids], minlength=300
    )


def test_average_rank_is_by_hand():
    assert average_rank(np.array([5.0, 3.0, 2.0])) == pytest.approx((5 * 1 + 3 * 2 + 2 * 3) / 10)
    assert average_rank(np.array([0.0, 4.0, 0.0, 4.0])) == 1.5  # ties share the mean of ranks 1 and 2
    uniform = np.ones(101)
    assert average_rank(uniform) == 51  # the whole of an evenly used vocabulary counts


def test_divergence_is_scipys_and_bounded():
    rng = np.random.default_rng(0)
    for _ in range(20):
        first, second = rng.poisson(1.0, (2, 50)).astype(np.float64)
        assert count_divergence(first, second) == pytest.approx(jensenshannon(first, second, base=2) ** 2, abs=1e-12)
    assert count_divergence(np.array([1.0, 2, 0]), np.array([2.0, 4, 0])) == pytest.approx(0, abs=1e-12)
    assert count_divergence(np.array([1.0, 0]), np.array([0, 3.0])) == 1


def test_a_table_is_of_the_tokenizers_tokens_with_chance_beside():
    allocation = vocabulary_allocation(tiny_tokenizer(), TEXTS, resamples=100)
    for share in allocation.shares:
        assert share.average_rank == pytest.approx(average_rank(counts_of(TEXTS[share.language]).astype(float)))
        assert share.interval.low <= share.average_rank <= share.interval.high
    matrix = allocation.matrix()
    assert np.array_equal(matrix, matrix.T) and not matrix.diagonal().any()
    by_hand = jensenshannon(counts_of(TEXTS["en"]), counts_of(TEXTS["ru"]), base=2) ** 2
    assert matrix[0, 2] == pytest.approx(by_hand, abs=1e-12) and matrix[0, 2] > 0.7 > matrix[0, 1]
    rows = allocation.rows()
    assert [row.claim for row in rows[:3]] == ["average rank of tokens"] * 3 and len(rows) == 6
    assert language_pair_map(value=matrix, languages=list(TEXTS), unit="divergence of tokens (bits)").data


def test_halves_of_one_text_are_the_floor_that_the_same_text_twice_lies_below():
    lines = [line for part in TEXTS.values() for line in part] * 3
    allocation = vocabulary_allocation(tiny_tokenizer(), {"en": lines, "de": lines[::-1]}, resamples=20)
    (overlap,) = allocation.overlaps
    assert overlap.divergence == pytest.approx(0, abs=1e-12) and overlap.null > 0.01


def test_a_language_of_one_text_is_refused():
    with pytest.raises(CorpusError, match="fi has fewer than two texts with tokens"):
        vocabulary_allocation(tiny_tokenizer(), {"en": ["a b", "c"], "fi": ["kissa"]})


def test_a_text_without_a_token_is_no_text():
    """With blank documents among them the halves of a language were now and then of blanks alone: 0 of 0 tokens."""
    blank = {tag: [*lines[:2], *[""] * 6] for tag, lines in TEXTS.items()}
    plain = {tag: lines[:2] for tag, lines in TEXTS.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found, wanted = (vocabulary_allocation(tiny_tokenizer(), text, resamples=50) for text in (blank, plain))
    assert found.shares == wanted.shares and found.overlaps == wanted.overlaps
    assert {share.texts for share in found.shares} == {2} and all(overlap.null > 0 for overlap in found.overlaps)
    with pytest.raises(CorpusError, match="fewer than two texts with tokens"):
        vocabulary_allocation(tiny_tokenizer(), {**plain, "fi": ["kissa", "", ""]})
