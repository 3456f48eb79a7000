"""Shares of languages in a BPE tokenizer's training data, read from its merges by a linear program."""

import math
import random
from dataclasses import dataclass

import numpy as np
from transformers import PreTrainedTokenizerBase

from babelscope.artifacts.shown import shown_by
from babelscope.axes import Float64
from babelscope.controls import Evidence, percentile_interval
from babelscope.corpus import Corpus, Document, Texts, as_corpus
from babelscope.errors import LanguageError, MeasurementError, refuse_no_number
from babelscope.languages import Language
from babelscope.vocabulary.merges import PairHistory, replay_merges
from babelscope.vocabulary.program import UNEXPLAINED_MOST, Fit, fit_shares

DECOY = Language("mis")
"""Tag of the control's text, "uncoded languages"."""
DECOY_MOST = 0.03
"""Share above which the decoy has passed for a language."""
WIDEST = 0.1
"""How far apart equally good shares of a language may lie before its share is not identified."""


@dataclass(frozen=True, eq=False)
class TrainingShares:
    """Inferred shares, with intervals over resampled documents and the share that a decoy text got."""

    __repr__ = shown_by()

    languages: tuple[Language, ...]
    share: Float64[np.ndarray, " language"]
    """Of the bytes that the tokenizer was trained on, among these languages; NaN where `unidentified` says why."""
    unidentified: tuple[str, ...]
    """By language: why its share is not identified; "" where it is."""
    low: Float64[np.ndarray, " language"]
    """Lower end of the 95 % interval; NaN without resamples."""
    high: Float64[np.ndarray, " language"]
    fit: Fit
    """What the program ended with, identified or not; the decoy comes after the languages."""
    decoy: float
    """Share that text of shuffled letters got when it competed: what the method gives to text never trained on."""
    merges: int
    """Merges explained."""
    n_bytes: Float64[np.ndarray, " language"]
    """Bytes of the text by which pairs were counted."""
    resamples: int
    seed: int

    @property
    def identified(self) -> bool:
        """Whether every language's share is."""
        return not any(self.unidentified)

    def text(self, language: str) -> str:
        """A language's share with three decimals, or "not identified"."""
        share = float(self.share[self.languages.index(Language.parse(language))])
        return "not identified" if math.isnan(share) else f"{share:.3f}"

    def rows(self) -> list[Evidence]:
        """One row per language; its estimate is NaN, and the note begins with "not identified", where it is not."""
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
                note=(f"not identified: {why}; " if why else "")
                + f"n in merges; the decoy got {self.decoy:.4f}; counted on {int(self.n_bytes[k])} bytes",
            )
            for k, (tag, why) in enumerate(zip(self.languages, self.unidentified, strict=True))
        ]


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
    Only shares among the given languages are meant: what else was in the data is not seen. Code is one of them; its
    tag is "zxx".  Not identified, and NaN, is a share where the program has not converged, leaves too much unexplained,
    gives the decoy a share, or would give the language another share as well; see `unidentified`.
    texts: sample of each language; it need not be parallel nor the training text, but of its kind.
    merges: how many of the first merges to explain; runs of whitespace do not count.
    resamples: bootstrap over documents for the interval; each costs as much as the estimate. 0: no interval.
    decoy: also let a further text compete, all languages' words with their letters shuffled; it should get about 0.
    Raises PrerequisiteError for a tokenizer without merges, LanguageError for fewer than two languages,
    MeasurementError for counts out of range.
    Source: Hayase et al. 2024, arXiv:2407.16607.
    """
    refuse_no_number({"merges": merges, "resamples": resamples}, MeasurementError, whole=True)
    if merges < 1 or resamples < 0:
        raise MeasurementError(
            f"merges {merges} and resamples {resamples} came; expected merges of 1 or more, resamples of 0 or more"
        )
    corpus = as_corpus(texts)
    if len(corpus) < 2:
        raise LanguageError("one language came; shares need at least two; give text of another language too")
    tags, n, outside = tuple(corpus), len(corpus), int(decoy)
    # One order whatever came, so that the answer does not depend on it.
    corpus = corpus.only(sorted(corpus))
    history = replay_merges(tokenizer, with_decoy(corpus, seed) if decoy else corpus, merges=merges)
    fit = fit_shares(history, outside=outside)
    lured = fit_shares(history, after=fit) if decoy and fit.converged else None
    lure = float("nan") if lured is None else float(lured.share[-1])
    why = reasons(history, fit, lured, n)
    rng = np.random.default_rng(seed)
    resampled_fits = [
        fit_shares(replay_merges(tokenizer, resample(corpus, rng), merges=merges)) for _ in range(resamples)
    ]
    ends = [percentile_interval([resampled.share[k] for resampled in resampled_fits]) for k in range(n)]
    identified, place = np.array([not reason for reason in why]), [list(corpus).index(tag) for tag in tags]
    with_outside = [*place, *range(n, n + outside)]
    return TrainingShares(
        languages=tags,
        share=np.where(identified, fit.share[:n], np.nan)[place],
        unidentified=tuple(why[k] for k in place),
        low=np.where(identified, [end.low for end in ends], np.nan)[place],
        high=np.where(identified, [end.high for end in ends], np.nan)[place],
        fit=fit._replace(
            share=fit.share[with_outside],
            low=fit.low[with_outside],
            high=fit.high[with_outside],
            cuts=tuple(cut[with_outside] for cut in fit.cuts),
        ),
        decoy=lure,
        merges=int(history.explained.sum()),
        n_bytes=history.n_bytes[:n][place],
        resamples=resamples,
        seed=seed,
    )


def reasons(history: PairHistory, fit: Fit, lured: Fit | None, n: int) -> tuple[str, ...]:
    """Why each language's share is not identified; "" where it is."""
    for_all = ""
    if fit.unexplained > UNEXPLAINED_MOST:
        for_all = (
            f"slacks of {fit.unexplained:.0%} of the merged pairs' counts, at most {UNEXPLAINED_MOST:.0%} expected: a "
            "language of the training data is missing, or the text is of another kind"
        )
    elif not fit.converged:
        for_all = f"not converged, the program may be {fit.gap:.1%} from its end"
    elif lured is not None and not lured.converged:
        for_all = "not converged with the decoy"
    elif lured is not None and float(lured.share[-1]) > DECOY_MOST:
        for_all = f"text of shuffled letters got {float(lured.share[-1]):.3f}, at most {DECOY_MOST} expected"
    if for_all:
        return (for_all,) * n
    reasons_by_language = []
    for k, tag in enumerate(history.languages[:n]):
        twins = [twin for j, twin in enumerate(history.languages[:n]) if j != k and same_counts(history, j, k)]
        if twins:
            reasons_by_language.append(f"its text counts the same pairs as that of {', '.join(twins)}")
        elif fit.high[k] - fit.low[k] > WIDEST:
            reasons_by_language.append(f"any share from {fit.low[k]:.3f} to {fit.high[k]:.3f} explains {tag} as well")
        else:
            reasons_by_language.append("")
    return tuple(reasons_by_language)


def same_counts(history: PairHistory, first: int, second: int) -> bool:
    """Whether two languages' texts hold the same pairs as often per byte."""
    rate = history.start[:, [first, second]] / history.n_bytes[[first, second]]
    return bool(np.allclose(rate[:, 0], rate[:, 1], rtol=1e-9, atol=0))


def resample(corpus: Corpus, rng: np.random.Generator) -> Corpus:
    """As many documents of each language, drawn with replacement."""
    drawn_documents = {
        tag: [documents[i] for i in rng.integers(len(documents), size=len(documents))]
        for tag, documents in corpus.items()
    }
    return Corpus({tag: tuple(documents) for tag, documents in drawn_documents.items()}, corpus.name)


def with_decoy(corpus: Corpus, seed: int) -> Corpus:
    """The corpus and one more text: every k-th document of k languages, with the letters of its words shuffled."""
    rng, k = random.Random(seed), len(corpus)
    documents = [document for place, texts in enumerate(corpus.values()) for document in texts[place::k]]
    mixed = [" ".join("".join(rng.sample(word, len(word))) for word in document.text.split()) for document in documents]
    decoy = tuple(Document(str(number), text) for number, text in enumerate(mixed))
    return Corpus({**corpus, DECOY: decoy}, f"{corpus.name}, with a decoy")
