"""Shares of languages in a BPE tokenizer's training data, read from its merges by a linear program."""

import logging
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.optimize import linprog
from scipy.sparse import coo_array
from transformers import PreTrainedTokenizerBase

from babelscope.axes import Float64
from babelscope.controls import Evidence, percentile_interval
from babelscope.corpus import Corpus, Document, Texts, as_corpus
from babelscope.errors import LanguageError, MeasurementError
from babelscope.languages import Language
from babelscope.vocabulary.merges import PairHistory, replay_merges

TOLERANCE = 1e-9
"""Occurrences per byte by which a pair may beat the merged one before that counts."""
DECOY = Language("mis")
"""Tag of the control's text, "uncoded languages"."""


log = logging.getLogger(__name__)
COLLAPSED = 0.8
"""Share of one among three or more languages that is more likely a degenerate fit than a finding."""


class Rival(NamedTuple):
    """A pair that was not merged although the shares so far make it the more frequent one."""

    step: int
    pair: int
    lead: Float64[np.ndarray, " language"]
    """Occurrences per byte of the merged pair minus those of this one."""


class Fit(NamedTuple):
    """Shares that explain the merges best."""

    share: Float64[np.ndarray, " language"]
    """Of the training data's bytes; they add up to 1."""
    violation: float
    """Mean over merges of what the slacks sum to, occurrences per byte; 0 where the shares explain every merge."""
    rivals: int
    """Constraints in the last program."""


@dataclass(frozen=True, eq=False)
class TrainingShares:
    """Inferred shares, with intervals over resampled documents and the share that a decoy text got."""

    languages: tuple[Language, ...]
    share: Float64[np.ndarray, " language"]
    """Of the bytes that the tokenizer was trained on, among these languages; they add up to 1."""
    low: Float64[np.ndarray, " language"]
    """Lower end of the 95 % interval; NaN without resamples."""
    high: Float64[np.ndarray, " language"]
    decoy: float
    """Share that text of shuffled letters got when it competed: what the method gives to text never trained on."""
    violation: float
    """See `Fit.violation`."""
    merges: int
    """Merges explained."""
    n_bytes: Float64[np.ndarray, " language"]
    """Bytes of the text by which pairs were counted."""
    resamples: int
    seed: int

    def rows(self) -> list[Evidence]:
        """One row a language."""
        return [
            Evidence(
                claim="share of the tokenizer's training bytes",
                language=tag,
                control="decoy text of shuffled letters",
                n=self.merges,
                estimate=float(self.share[k]),
                low=float(self.low[k]),
                high=float(self.high[k]),
                draws=self.resamples,
                seed=self.seed,
                note=f"n in merges; the decoy got {self.decoy:.4f}; counted on {int(self.n_bytes[k])} bytes",
            )
            for k, tag in enumerate(self.languages)
        ]


def fit_shares(history: PairHistory, *, rounds: int = 15) -> Fit:
    """Shares α that make every merge, when it was made, the most frequent pair, as far as that is possible.

    minimise Σ_t v_t + Σ_p u_p  subject to  Σ_k α_k (c_k[t, merged] - c_k[t, p]) + v_t + u_p >= 0 for each merge t and
    other pair p,  Σ_k α_k = 1,  α, u, v >= 0;  c is a pair's count per byte of a language's text before merge t.
    Constraints are added as they are broken: each round, for each merge, the pair that beats it most.  Stops when
    none is new or after `rounds`.
    Source: Hayase et al. 2024, arXiv:2407.16607; differs from its code in the solver and in the order of the rows.
    """
    k = len(history.languages)
    share, total, rivals = np.full(k, 1 / k), 0.0, dict[tuple[int, int], Rival]()
    for _ in range(rounds):
        fresh = {(rival.step, rival.pair): rival for rival in find_rivals(history, share)}
        if fresh.keys() <= rivals.keys():
            break
        rivals.update(fresh)
        share, total = solve(list(rivals.values()), k)
    return Fit(share, total / max(1, len(history.merged)), len(rivals))


def find_rivals(history: PairHistory, share: Float64[np.ndarray, " language"]) -> Iterator[Rival]:
    """For each merge the pair that beats it most under these shares; nothing where none does."""
    counts = history.start / history.n_bytes
    score, weight = counts @ share, share / history.n_bytes
    for step, (merged, change) in enumerate(zip(history.merged.tolist(), history.changes, strict=True)):
        best = int(score.argmax())
        if best != merged and score[best] > score[merged] + TOLERANCE:
            yield Rival(step, best, counts[merged] - counts[best])
        np.add.at(counts, (change.pair, change.language), change.delta / history.n_bytes[change.language])
        np.add.at(score, change.pair, change.delta * weight[change.language])


def solve(rivals: list[Rival], k: int) -> tuple[Float64[np.ndarray, " language"], float]:
    """The linear program of `fit_shares` over these constraints: shares, and the sum of slacks."""
    lead = np.stack([rival.lead for rival in rivals])
    _, step = np.unique([rival.step for rival in rivals], return_inverse=True)
    _, pair = np.unique([rival.pair for rival in rivals], return_inverse=True)
    n, steps, pairs = len(rivals), step.max() + 1, pair.max() + 1
    row = np.arange(n)
    values = np.concatenate([-lead.ravel(), -np.ones(2 * n)])
    rows = np.concatenate([np.repeat(row, k), row, row])
    columns = np.concatenate([np.tile(np.arange(k), n), k + step, k + steps + pair])
    size = k + steps + pairs
    found = linprog(
        c=np.r_[np.zeros(k), np.ones(steps + pairs)],
        A_ub=coo_array((values, (rows, columns)), shape=(n, size)).tocsr(),
        b_ub=np.zeros(n),
        A_eq=coo_array((np.ones(k), (np.zeros(k, dtype=np.int64), np.arange(k))), shape=(1, size)).tocsr(),
        b_eq=[1.0],
        method="highs",
    )
    if not found.success:
        raise MeasurementError(f"the linear program ended with {found.message!r}; expected a solution; use more text")
    return found.x[:k], float(found.fun)


def infer_training_shares(
    tokenizer: PreTrainedTokenizerBase,
    texts: Texts,
    *,
    merges: int = 3000,
    resamples: int = 0,
    decoy: bool = True,
    seed: int = 0,
) -> TrainingShares:
    """Shares of these languages in the data that a BPE tokenizer was trained on, from the order of its merges.

    A merge joins the most frequent pair of its moment; which pairs those were says how the languages were mixed.
    Only shares among the given languages are meant: what else was in the data is not seen.
    texts: sample of each language; it need not be parallel nor the training text, but of its kind.
    merges: how many of the first merges to explain.
    resamples: bootstrap over documents for the interval; each costs as much as the estimate. 0: no interval.
    decoy: also fit once with a further text, all languages' words with their letters shuffled; it should get about 0.
    Raises PrerequisiteError for a tokenizer without merges, LanguageError for fewer than two languages.
    Source: Hayase et al. 2024, arXiv:2407.16607.
    """
    corpus = as_corpus(texts)
    if len(corpus) < 2:
        raise LanguageError("one language came; shares need at least two; give text of another language too")
    history = replay_merges(tokenizer, corpus, merges=merges)
    fit = fit_shares(history)
    if len(corpus) > 2 and float(fit.share.max()) > COLLAPSED:
        log.warning(
            "%s takes %.0f %% of the inferred shares: samples of unlike size or kind, or a large language left out, "
            "make the program degenerate; give every language that the tokenizer saw, alike in size and kind",
            list(corpus)[int(fit.share.argmax())],
            100 * float(fit.share.max()),
        )
    rng = np.random.default_rng(seed)
    drawn = [fit_shares(replay_merges(tokenizer, resample(corpus, rng), merges=merges)) for _ in range(resamples)]
    ends = [percentile_interval([one.share[k] for one in drawn]) for k in range(len(corpus))]
    lure = fit_shares(replay_merges(tokenizer, with_decoy(corpus, seed), merges=merges)).share[-1] if decoy else np.nan
    return TrainingShares(
        languages=tuple(corpus),
        share=fit.share,
        low=np.array([end.low for end in ends]),
        high=np.array([end.high for end in ends]),
        decoy=float(lure),
        violation=fit.violation,
        merges=len(history.merged),
        n_bytes=history.n_bytes,
        resamples=resamples,
        seed=seed,
    )


def resample(corpus: Corpus, rng: np.random.Generator) -> Corpus:
    """As many documents of each language, drawn with replacement."""
    picked = {tag: [found[i] for i in rng.integers(len(found), size=len(found))] for tag, found in corpus.items()}
    return Corpus({tag: tuple(found) for tag, found in picked.items()}, corpus.name)


def with_decoy(corpus: Corpus, seed: int) -> Corpus:
    """The corpus and one more text: every k-th document of k languages, with the letters of its words shuffled."""
    rng, k = random.Random(seed), len(corpus)
    found = [document for place, texts in enumerate(corpus.values()) for document in texts[place::k]]
    mixed = [" ".join("".join(rng.sample(word, len(word))) for word in document.text.split()) for document in found]
    decoy = tuple(Document(str(number), text) for number, text in enumerate(mixed))
    return Corpus({**corpus, DECOY: decoy}, f"{corpus.name}, with a decoy")
