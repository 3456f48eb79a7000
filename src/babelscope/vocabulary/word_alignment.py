"""Which words of two languages translate each other: IBM Model 1, fitted exactly, in both directions."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from babelscope.axes import Float64, Int64

PASSES = 10
"""Of expectation and maximisation."""
EMPTY = 0
"""Number of the empty word, which stands before each source sentence and takes what translates nothing."""
TokenLines = Sequence[Sequence[str]]
"""By sentence."""


class WordTable(NamedTuple):
    """Probabilities of a target word where a source word is given, of pairs that stand in one pair of sentences."""

    source: Int64[np.ndarray, " pair"]
    """Numbers of source words; 0 is the empty word."""
    target: Int64[np.ndarray, " pair"]
    probability: Float64[np.ndarray, " pair"]
    """Sums to 1 over the target words of each source word."""


class Candidates(NamedTuple):
    """Each pair of a place in a source sentence, or its empty word, and a place in the target sentence."""

    source_place: Int64[np.ndarray, " candidate"]
    """Counted through all sentences; −1 is the empty word."""
    target_place: Int64[np.ndarray, " candidate"]
    source: Int64[np.ndarray, " candidate"]
    """Number of the word that stands there; 0 is the empty word."""
    target: Int64[np.ndarray, " candidate"]
    distance: Float64[np.ndarray, " candidate"]
    """|i / m − j / n|: how far apart the two stand in their sentences; 1 at the empty word."""


def candidates_of(sources: TokenLines, targets: TokenLines) -> Candidates:
    """All pairs of places in sentences that translate each other; words are numbered as they come."""
    numbers: tuple[dict[str, int], dict[str, int]] = ({}, {})
    starts, columns = [0, 0], list[tuple[np.ndarray, ...]]()
    for pair in zip(sources, targets, strict=True):
        source, target = (
            np.array([known.setdefault(word, len(known)) for word in words], dtype=np.int64)
            for known, words in zip(numbers, pair, strict=True)
        )
        m, n = len(source), len(target)
        places, positions = np.arange(m), np.arange(n)
        apart = np.abs((places[None] + 0.5) / max(m, 1) - (positions[:, None] + 0.5) / max(n, 1))
        columns.append(
            (
                np.tile(np.r_[-1, starts[0] + places], n),
                np.repeat(starts[1] + positions, m + 1),
                np.tile(np.r_[EMPTY, source + 1], n),
                np.repeat(target, m + 1),
                np.c_[np.ones(n), apart].ravel(),
            )
        )
        starts = [starts[0] + m, starts[1] + n]
    return Candidates(*(np.concatenate(column) for column in zip(*columns, strict=True)))


def fit_word_table(candidates: Candidates, passes: int = PASSES) -> tuple[WordTable, Int64[np.ndarray, " candidate"]]:
    """IBM Model 1 by expectation and maximisation from equal probabilities, and the pair of each candidate.

    Expectation: a target place j comes from the source place i with t(f_j | e_i) / Σ_i' t(f_j | e_i').
    Maximisation: t(f | e) is the sum of that over all places of e and f, as a part of its sum over all f.
    Source: Brown et al. 1993, "The mathematics of statistical machine translation".
    """
    width = int(candidates.target.max(initial=0)) + 1
    keys, pair = np.unique(candidates.source * width + candidates.target, return_inverse=True)
    source, target = np.divmod(keys, width)
    probability = np.full(len(keys), 1 / width)
    for _ in range(passes):
        weight = probability[pair]
        expected = weight / np.bincount(candidates.target_place, weight)[candidates.target_place]
        counts = np.bincount(pair, expected, len(keys))
        probability = counts / np.bincount(source, counts)[source]
    return WordTable(source, target, probability), pair


def best_places(sources: TokenLines, targets: TokenLines, passes: int = PASSES) -> Int64[np.ndarray, " target_place"]:
    """The source place that each target place most probably translates, counted through all sentences.

    −1 is the empty word. Of equally probable places, such as those of one word, the nearest in its sentence is taken.
    """
    candidates = candidates_of(sources, targets)
    table, pair = fit_word_table(candidates, passes)
    # Rounded, or the order of summation would decide between words that were always seen together.
    probability = np.round(table.probability[pair], 12)
    order = np.lexsort((candidates.distance, -probability, candidates.target_place))
    _, first = np.unique(candidates.target_place[order], return_index=True)
    return candidates.source_place[order[first]]


def word_links(sources: TokenLines, targets: TokenLines, passes: int = PASSES) -> Int64[np.ndarray, "link 2"]:
    """Source and target places, counted through all sentences, that choose each other in both directions.

    Sentences without a word have no links. The links rise by target place.
    """
    if not (any(sources) and any(targets)):
        return np.zeros((0, 2), dtype=np.int64)
    forward, backward = best_places(sources, targets, passes), best_places(targets, sources, passes)
    places = np.arange(len(forward))
    mutual = (forward >= 0) & (backward[forward] == places)
    return np.c_[forward[mutual], places[mutual]]
