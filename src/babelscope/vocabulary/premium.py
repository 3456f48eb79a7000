"""What a tokenizer costs each language: tokens for the same sentences, and how its words are cut."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple
from unicodedata import category

import numpy as np
from tokenizers import Encoding
from transformers import PreTrainedTokenizerBase

from babelscope.artifacts.shown import shown_by
from babelscope.axes import Float64, Int64
from babelscope.controls import Evidence, Interval, percentile_interval
from babelscope.controls.bootstrap_draws import draw_counts
from babelscope.corpus import Corpus, Texts, as_parallel, encode_texts, say_controls
from babelscope.errors import CorpusError, LanguageError
from babelscope.languages import Language
from babelscope.languages.scripts import UNSPACED
from babelscope.vocabulary.merge_lists import backend_of

CharacterSpan = tuple[int, int]
"""First character and the one after the last."""


class TokenCost(NamedTuple):
    """What one language pays; intervals are 95 %, over the same resampled sentences in both languages."""

    language: Language
    sentences: int
    tokens: int
    premium: float
    """Tokens over those of the same sentences in the language compared with: a ratio of sums."""
    interval: Interval
    """Of the premium."""
    character_premium: float
    """The same ratio in characters: what the writing system alone would cost. A control."""
    byte_premium: float
    """The same ratio in UTF-8 bytes: what a tokenizer of bytes would charge. A control."""
    characters_per_token: float
    bytes_per_token: float
    continued_words: float
    """Share of words, runs of letters and marks, cut into two tokens or more; NaN in scripts without spaces."""
    vocabulary_used: float
    """Share of the vocabulary that occurs in the language's text."""


@dataclass(frozen=True, eq=False)
class TokenCosts:
    """The cost of every language against one of them."""

    __repr__ = shown_by()

    costs: tuple[TokenCost, ...]
    against: Language
    vocabulary: int
    """Entries of the tokenizer, special ones included."""
    unused: float
    """Share of the vocabulary that occurs in no language's text: an upper bound, which falls with more text."""
    unused_half: float
    """The same from every other sentence only: how far the bound still falls."""
    resamples: int
    seed: int

    def rows(self) -> list[Evidence]:
        """One row per language and measure."""
        rows = []
        for cost in self.costs:
            note = f"same sentences in characters {cost.character_premium:.3f}, in bytes {cost.byte_premium:.3f}"
            shared = {"language": cost.language, "n": cost.sentences}
            rows.append(
                Evidence(
                    claim="tokenizer premium",
                    control=f"the same sentences in {self.against}",
                    estimate=cost.premium,
                    low=cost.interval.low,
                    high=cost.interval.high,
                    draws=self.resamples,
                    seed=self.seed,
                    note=note,
                    **shared,
                )
            )
            for claim in ("characters_per_token", "bytes_per_token", "continued_words", "vocabulary_used"):
                rows.append(
                    Evidence(claim=claim.replace("_", " "), control="none", estimate=getattr(cost, claim), **shared)
                )
        shared_note = f"upper bound; {self.unused_half:.3f} on half of the sentences"
        total = sum(cost.sentences for cost in self.costs)
        return [
            *rows,
            Evidence(
                claim="vocabulary unused",
                language="",
                control="half of the sentences",
                n=total,
                estimate=self.unused,
                note=shared_note,
            ),
        ]


class LineCounts(NamedTuple):
    """Sizes of each sentence of one language."""

    tokens: Int64[np.ndarray, " sentence"]
    characters: Int64[np.ndarray, " sentence"]
    n_bytes: Int64[np.ndarray, " sentence"]
    words: int
    continued: int
    used: frozenset[int]
    """Ids that occur."""
    used_half: frozenset[int]
    """Ids that occur in every other sentence."""


def token_costs(
    tokenizer: PreTrainedTokenizerBase, texts: Texts, *, against: str = "en", resamples: int = 1000, seed: int = 0
) -> TokenCosts:
    """Tokenizer premium of each language on parallel text, characters and bytes per token, and continued words.

    premium_k = Σ_s tokens(s, k) / Σ_s tokens(s, against) over the same sentences s; BOS and EOS are not counted.
    against: the language compared with; its own premium is 1.
    Raises CorpusError for text that is not parallel, LanguageError where `against` has none or no other language came.
    Source of the premium: Petrov et al. 2023, arXiv:2305.15425; of continued words: Rust et al. 2021, arXiv:2012.15613.
    """
    corpus, base = as_parallel(texts), Language.parse(against)
    check_parallel(corpus, base)
    backend = backend_of(tokenizer)
    counts = {}
    for tag, documents in corpus.items():
        lines = [document.text for document in documents]
        encoded = encode_texts(tokenizer, lines)
        say_controls([encoded_text.controls for encoded_text in encoded], tag)
        counts[tag] = count_tokens(
            lines, [encoded_text.encoding for encoded_text in encoded if encoded_text.encoding is not None]
        )
    n = len(counts[base].tokens)
    weights = draw_counts(n, resamples, np.random.default_rng(seed)).astype(np.float64)
    size = backend.get_vocab_size(with_added_tokens=True)
    used_entries = frozenset[int]().union(*(language_counts.used for language_counts in counts.values()))
    half = frozenset[int]().union(*(language_counts.used_half for language_counts in counts.values()))
    return TokenCosts(
        costs=tuple(
            cost_of(tag, language_counts_of, counts[base], weights, size) for tag, language_counts_of in counts.items()
        ),
        against=base,
        vocabulary=size,
        unused=1 - len(used_entries) / size,
        unused_half=1 - len(half) / size,
        resamples=resamples,
        seed=seed,
    )


def check_parallel(corpus: Corpus, base: Language) -> None:
    """Raise CorpusError or LanguageError, in one line, where languages cannot be compared."""
    if base not in corpus:
        raise LanguageError(
            f"no text in {base!r} to compare with; expected it among {', '.join(corpus)}; add it, or compare with "
            "another language (against)"
        )
    if len(corpus) < 2:
        raise LanguageError(f"{base!r} came alone; expected another language to compare it with; add one")
    if not corpus.parallel:
        raise CorpusError(
            f"{corpus.name}: nothing says that its sentences are translations of each other; expected parallel "
            "text: rows with the same ids, or lines read with parallel=True (--parallel); premiums on other text would "
            "compare contents"
        )


def count_tokens(texts: Sequence[str], encoded: Sequence[Encoding]) -> LineCounts:
    """Sizes of every sentence, and how its words are cut."""
    words = continued = 0
    for text, encoding in zip(texts, encoded, strict=True):
        pieces = pieces_by_word(list(word_spans(text)), encoding.offsets)
        words += len(pieces)
        continued += sum(count > 1 for count in pieces)
    return LineCounts(
        tokens=np.array([len(encoding.ids) for encoding in encoded]),
        characters=np.array([len(text) for text in texts]),
        n_bytes=np.array([len(text.encode()) for text in texts]),
        words=words,
        continued=continued,
        used=frozenset(token for encoding in encoded for token in encoding.ids),
        used_half=frozenset(token for encoding in encoded[::2] for token in encoding.ids),
    )


def word_spans(text: str) -> Iterator[CharacterSpan]:
    """Runs of letters and their marks."""
    start = 0
    for is_word, run in groupby(text, key=lambda letter: category(letter)[0] in "LM"):
        end = start + sum(1 for _ in run)
        if is_word:
            yield start, end
        start = end


def pieces_by_word(words: Sequence[CharacterSpan], tokens: Sequence[CharacterSpan]) -> list[int]:
    """How many tokens share a character with each word; both in order of the text."""
    pieces, first = [], 0
    for start, end in words:
        while first < len(tokens) and tokens[first][1] <= start:
            first += 1
        end_token = first
        while end_token < len(tokens) and tokens[end_token][0] < end:
            end_token += 1
        pieces.append(end_token - first)
    return pieces


def cost_of(
    tag: Language,
    counts: LineCounts,
    base: LineCounts,
    weights: Float64[np.ndarray, "resample sentence"],
    vocabulary: int,
) -> TokenCost:
    """One language's row."""
    total = int(counts.tokens.sum())
    spaced = tag.script not in UNSPACED and counts.words > 0
    return TokenCost(
        language=tag,
        sentences=len(counts.tokens),
        tokens=total,
        premium=total / int(base.tokens.sum()),
        interval=percentile_interval((weights @ counts.tokens) / (weights @ base.tokens)),
        character_premium=float(counts.characters.sum() / base.characters.sum()),
        byte_premium=float(counts.n_bytes.sum() / base.n_bytes.sum()),
        characters_per_token=float(counts.characters.sum()) / total,
        bytes_per_token=float(counts.n_bytes.sum()) / total,
        continued_words=counts.continued / counts.words if spaced else float("nan"),
        vocabulary_used=len(counts.used) / vocabulary,
    )
