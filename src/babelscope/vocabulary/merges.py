"""Apply a BPE tokenizer's merges to labelled text one by one, and keep how every pair's count changes."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerBase

from babelscope.artifacts.shown import shown_by
from babelscope.axes import Bool, Float64, Int64
from babelscope.corpus import Corpus
from babelscope.languages import Language
from babelscope.vocabulary.merge_lists import (
    MergeList,
    backend_of,
    is_byte_level,
    is_whitespace,
    merges_of_training,
    read_merges,
)
from babelscope.vocabulary.words import count_words

WALL, DEAD = -1, -2
"""What stands between words, and where the right half of a merged pair was."""


class CountChange(NamedTuple):
    """How one merge changes the counts."""

    pair: Int64[np.ndarray, " change"]
    """Place of the pair in the history."""
    language: Int64[np.ndarray, " change"]
    delta: Float64[np.ndarray, " change"]


@dataclass(frozen=True, eq=False)
class PairHistory:
    """Counts of neighbouring symbols before each merge, as the start and the changes; unit: occurrences."""

    __repr__ = shown_by()

    languages: tuple[Language, ...]
    n_bytes: Float64[np.ndarray, " language"]
    """UTF-8 bytes of the text."""
    start: Float64[np.ndarray, "pair language"]
    """Before the first merge; pairs that come up later start at 0."""
    merged: Int64[np.ndarray, " step"]
    """Place of the pair that each merge joins."""
    changes: tuple[CountChange, ...]
    """What each merge changes."""
    explained: Bool[np.ndarray, " step"]
    """Which merges were chosen by their counts; the others only change the text."""
    never: Int64[np.ndarray, " _"]
    """Pairs that are no rivals of any merge."""
    barred: dict[int, Int64[np.ndarray, " _"]]
    """By merge: pairs that are no rivals of those after it."""


def replay_merges(tokenizer: PreTrainedTokenizerBase, texts: Corpus, *, merges: int = 3000) -> PairHistory:
    """Apply the merges to the texts and record the count of every pair before each, up to `merges` explained ones.

    Words are counted once each and every merge touches only its own occurrences, so the cost is that of the changes.
    Raises PrerequisiteError for a tokenizer without merges.
    """
    backend = backend_of(tokenizer)
    listed_pairs, byte_level = read_merges(backend), is_byte_level(json.loads(backend.to_str()))
    steps = merges_of_training(listed_pairs, byte_level=byte_level, most=merges)
    vocabulary = backend.get_vocab(with_added_tokens=True)
    chain = Chain(count_words(backend, listed_pairs, texts), vocabulary)
    start = chain.tally(np.flatnonzero(chain.symbol[:-1] >= 0), 1.0)
    table = PairTable()
    first = table.change(*start, chain)
    merged, changes = [], []
    for left, right in steps.pairs:
        ids = vocabulary[left], vocabulary[right], vocabulary[left + right]
        merged.append(table.place(ids[0] * chain.base + ids[1]))
        changes.append(table.change(*chain.merge(*ids), chain))
    counts = np.zeros((len(table.places), len(texts)))
    np.add.at(counts, (first.pair, first.language), first.delta)
    sizes = [sum(len(document.text.encode()) for document in documents) for documents in texts.values()]
    never, barred = passed_over(table, chain.base, vocabulary, steps, byte_level)
    return PairHistory(
        tuple(texts),
        np.array(sizes, dtype=np.float64),
        counts,
        np.array(merged, dtype=np.int64),
        tuple(changes),
        np.array(steps.explained),
        never,
        barred,
    )


def passed_over(
    table: "PairTable", base: int, vocabulary: Mapping[str, int], steps: MergeList, byte_level: bool
) -> tuple[Int64[np.ndarray, " _"], dict[int, Int64[np.ndarray, " _"]]]:
    """Pairs that training never took: runs of whitespace; and by step, those whose token exists once it is done."""
    tokens = {index: token for token, index in vocabulary.items()}
    step_of = {left + right: step for step, (left, right) in enumerate(steps.pairs)} if steps.once else {}
    never, barred = [], dict[int, list[int]]()
    for key, place in table.places.items():
        token = tokens[key // base] + tokens[key % base]
        if is_whitespace(token, byte_level=byte_level):
            never.append(place)
        elif token in step_of:
            barred.setdefault(step_of[token], []).append(place)
    return np.array(never, dtype=np.int64), {step: np.array(places) for step, places in barred.items()}


class PairTable:
    """Places of pairs, given in the order in which they are met."""

    def __init__(self) -> None:
        self.places: dict[int, int] = {}

    def place(self, key: int) -> int:
        """The pair's place; a new one for a pair not met before."""
        return self.places.setdefault(key, len(self.places))

    def change(self, keys: np.ndarray, weights: np.ndarray, chain: "Chain") -> CountChange:
        """Summed weights by pair and language; what cancels is left out."""
        unique, inverse = np.unique(keys, return_inverse=True)
        delta = np.bincount(inverse, weights, len(unique))
        unique, delta = unique[delta != 0], delta[delta != 0]
        pairs, languages = np.divmod(unique, chain.n_languages)
        places = np.fromiter((self.place(key) for key in pairs.tolist()), np.int64, len(pairs))
        return CountChange(places, languages, delta)


class Chain:
    """All words as one doubly linked chain of symbols with walls between them; merged in place."""

    def __init__(
        self,
        words: Sequence[Counter[str]] | Sequence[Counter[tuple[str, ...]]],
        vocabulary: Mapping[str, int],
        *,
        room: int = 0,
    ) -> None:
        """words: with their counts, by language, in letters or in tokens. room: for how many symbols to come."""
        self.n_languages, self.base = len(words), max(vocabulary.values()) + 1 + room
        symbols, lengths, weights, languages = [WALL], [1], [0], [0]
        for k, counts in enumerate(words):
            for word, count in counts.items():
                symbols += [vocabulary.get(letter, WALL) for letter in word]
                symbols.append(WALL)
                lengths.append(len(word) + 1)
                weights.append(count)
                languages.append(k)
        self.symbol = np.array(symbols, dtype=np.int64)
        self.weight = np.repeat(np.array(weights, dtype=np.float64), lengths)
        self.language = np.repeat(np.array(languages, dtype=np.int64), lengths)
        self.next = np.arange(1, len(symbols) + 1)
        self.previous = np.arange(-1, len(symbols) - 1)
        order = np.argsort(self.symbol, kind="stable")
        known, starts = np.unique(self.symbol[order], return_index=True)
        self.places = dict(zip(known.tolist(), np.split(order, starts[1:]), strict=True))
        """Where each symbol stood when it was made; some may have been merged since."""

    def tally(self, at: np.ndarray, sign: float) -> tuple[np.ndarray, np.ndarray]:
        """Keys and weights of the pairs that begin at these places."""
        left, right = self.symbol[at], self.symbol[self.next[at]]
        both_known = (left >= 0) & (right >= 0)
        at = at[both_known]
        key = (left[both_known] * self.base + right[both_known]) * self.n_languages + self.language[at]
        return key, sign * self.weight[at]

    def find(self, left: int, right: int) -> np.ndarray:
        """Ascending places of the pair; of overlapping ones every other, from the left."""
        none = np.empty(0, dtype=np.int64)
        lefts, rights = self.places.get(left, none), self.places.get(right, none)
        places = lefts if len(lefts) <= len(rights) else self.previous[rights[self.symbol[rights] == right]]
        places = places[self.symbol[places] == left]
        places = np.sort(places[self.symbol[self.next[places]] == right])
        if left != right or not len(places):
            return places
        number = np.arange(len(places))
        linked = np.r_[False, self.next[places[:-1]] == places[1:]]
        return places[(number - np.maximum.accumulate(np.where(linked, 0, number))) % 2 == 0]

    def merge(self, left: int, right: int, joined: int) -> tuple[np.ndarray, np.ndarray]:
        """Join the pair everywhere; keys and weights of the pairs that go and that come."""
        at = self.find(left, right)
        removed_pairs = self.tally(np.unique(np.concatenate([self.previous[at], at, self.next[at]])), -1.0)
        dead = self.next[at]
        after = self.next[dead]
        self.symbol[at], self.symbol[dead] = joined, DEAD
        self.next[at] = after
        self.previous[after] = at
        self.places[joined] = np.concatenate([self.places[joined], at]) if joined in self.places else at
        come = self.tally(np.unique(np.concatenate([self.previous[at], at])), 1.0)
        return np.concatenate([removed_pairs[0], come[0]]), np.concatenate([removed_pairs[1], come[1]])
