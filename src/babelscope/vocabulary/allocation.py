"""How much of a vocabulary each language uses, and how much of it two languages share."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_matrix
from scipy.stats import rankdata
from transformers import PreTrainedTokenizerBase

from babelscope.artifacts.shown import shown_by
from babelscope.axes import Float64
from babelscope.controls import Evidence, Interval, percentile_interval
from babelscope.controls.bootstrap_draws import draw_counts
from babelscope.corpus import Texts, as_corpus, encode_texts, say_controls
from babelscope.errors import CorpusError
from babelscope.languages import Language

HALVES = 20
"""Random halvings of a language's text, for the divergence that nothing but chance gives."""


class VocabularyShare(NamedTuple):
    """One language's part of the vocabulary."""

    language: Language
    average_rank: float
    """Σ_v rank(v) p(v), rank 1 the most frequent token, ties the mean of their ranks: the more tokens a language has
    that are its own and often used, the larger."""
    interval: Interval
    """95 %, bootstrap over texts."""
    characters: float
    """The same with characters for tokens: what the writing system alone gives. A control."""
    texts: int
    """Those that have tokens."""


class VocabularyOverlap(NamedTuple):
    """Two languages' token distributions."""

    first: Language
    second: Language
    divergence: float
    """Jensen-Shannon, base 2: 0 the same distribution, 1 no token in common."""
    interval: Interval
    """95 %, bootstrap over texts of both."""
    null: float
    """Mean divergence of two random halves of one language's text, over both languages."""


@dataclass(frozen=True, eq=False)
class VocabularyAllocation:
    """The vocabulary by language and by pair."""

    __repr__ = shown_by()

    shares: tuple[VocabularyShare, ...]
    overlaps: tuple[VocabularyOverlap, ...]
    resamples: int
    seed: int

    def matrix(self) -> Float64[np.ndarray, "language language"]:
        """Divergences, 0 on the diagonal."""
        tags = [share.language for share in self.shares]
        values = np.zeros((len(tags), len(tags)))
        for overlap in self.overlaps:
            first, second = tags.index(overlap.first), tags.index(overlap.second)
            values[first, second] = values[second, first] = overlap.divergence
        return values

    def rows(self) -> list[Evidence]:
        """One row per language, and one per pair."""
        settings = {"draws": self.resamples, "seed": self.seed}
        rows = [
            Evidence(
                claim="average rank of tokens",
                language=share.language,
                control="characters in the place of tokens",
                n=share.texts,
                estimate=share.average_rank,
                low=share.interval.low,
                high=share.interval.high,
                note=f"of characters {share.characters:.1f}",
                **settings,
            )
            for share in self.shares
        ]
        texts = {share.language: share.texts for share in self.shares}
        rows += [
            Evidence(
                claim=f"tokens shared with {overlap.first}, Jensen-Shannon divergence",
                language=overlap.second,
                control="halves of one language's text",
                n=texts[overlap.first] + texts[overlap.second],
                estimate=overlap.divergence,
                low=overlap.interval.low,
                high=overlap.interval.high,
                note=f"halves {overlap.null:.4f}",
                **settings,
            )
            for overlap in self.overlaps
        ]
        return rows


def vocabulary_allocation(
    tokenizer: PreTrainedTokenizerBase, texts: Texts, *, resamples: int = 200, seed: int = 0
) -> VocabularyAllocation:
    """Average rank of each language's tokens, and the divergence of the token distributions of each pair.

    BOS and EOS are not counted, and a text without a token is no text: a half or a resample of such would have no
    distribution. Compare languages on text of one size: with more text more rare tokens are seen, and
    the average rank rises.
    Raises CorpusError for a language without two texts that have tokens.
    Source: Limisiewicz et al. 2023, arXiv:2305.17179.
    """
    corpus = as_corpus(texts)
    counts: dict[Language, csr_matrix] = {}
    characters: dict[Language, float] = {}
    ids: dict[int, int] = {}
    encoded_by_tag = {}
    for tag, documents in corpus.items():
        lines = [document.text for document in documents]
        encoded = encode_texts(tokenizer, lines)
        say_controls([encoded_text.controls for encoded_text in encoded], tag)
        encoded_by_tag[tag] = [list(encoded_text.ids) for encoded_text in encoded if encoded_text.ids]
        if len(encoded_by_tag[tag]) < 2:
            raise CorpusError(f"{tag} has fewer than two texts with tokens; expected two or more; give more text")
        for part in encoded_by_tag[tag]:
            for token in part:
                ids.setdefault(token, len(ids))
        letters: dict[str, int] = {}
        for line in lines:
            for letter in line:
                letters[letter] = letters.get(letter, 0) + 1
        characters[tag] = average_rank(np.array(list(letters.values()), dtype=np.float64))
    for tag, parts in encoded_by_tag.items():
        counts[tag] = count_matrix(parts, ids)
    rng = np.random.default_rng(seed)
    resampled, halves = {}, {}
    for tag, matrix in counts.items():
        n = len(encoded_by_tag[tag])
        resampled[tag] = np.asarray(draw_counts(n, resamples, rng) @ matrix, dtype=np.float64)
        half = np.array([rng.permutation(n) < n // 2 for _ in range(HALVES)])
        halves[tag] = np.mean([count_divergence(member @ matrix, ~member @ matrix) for member in half])
    totals = {tag: np.asarray(matrix.sum(axis=0), dtype=np.float64).ravel() for tag, matrix in counts.items()}
    shares = tuple(
        VocabularyShare(
            tag,
            average_rank(totals[tag]),
            about(average_rank(totals[tag]), [average_rank(sample) for sample in resampled[tag]]),
            characters[tag],
            len(encoded_by_tag[tag]),
        )
        for tag in corpus
    )
    overlaps = []
    for first, second in combinations(corpus, 2):
        divergence = count_divergence(totals[first], totals[second])
        samples = [count_divergence(*pair) for pair in zip(resampled[first], resampled[second], strict=True)]
        null = float(halves[first] + halves[second]) / 2
        overlaps.append(VocabularyOverlap(first, second, divergence, about(divergence, samples), null))
    return VocabularyAllocation(shares, tuple(overlaps), resamples, seed)


def count_matrix(parts: Sequence[Sequence[int]], places: dict[int, int]) -> csr_matrix:
    """How often each text has each token; places: column of a token."""
    rows = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    columns = np.array([places[token] for part in parts for token in part], dtype=np.int64)
    return csr_matrix((np.ones(len(rows)), (rows, columns)), shape=(len(parts), len(places)))


def average_rank(counts: Float64[np.ndarray, " token"]) -> float:
    """Σ rank · share over tokens that occur, rank 1 the most frequent; ties get the mean of their ranks."""
    positive = counts[counts > 0]
    return float(rankdata(-positive) @ positive / positive.sum())


def count_divergence(first: Float64[np.ndarray, " token"], second: Float64[np.ndarray, " token"]) -> float:
    """H((p + q)/2) - (H(p) + H(q))/2 in bits, of two lists of counts over the same tokens."""
    p, q = first / first.sum(), second / second.sum()
    return entropy_bits((p + q) / 2) - (entropy_bits(p) + entropy_bits(q)) / 2


def entropy_bits(share: Float64[np.ndarray, " token"]) -> float:
    """-Σ p log2 p; 0 log 0 is 0."""
    positive = share[share > 0]
    return float(-(positive * np.log2(positive)).sum())


def about(estimate: float, samples: Sequence[float]) -> Interval:
    """The samples' spread about their own mean, put about the estimate: resampled text has fewer rare tokens."""
    low, high = percentile_interval(np.array(samples) - np.mean(samples))
    return Interval(estimate + low, estimate + high)
