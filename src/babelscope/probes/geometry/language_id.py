"""Whether a sentence's language can be read off the stream by a line, at each depth."""

from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange

from babelscope.artifacts.shown import shown_by
from babelscope.axes import Bool, Float64, Tensor
from babelscope.controls import Interval, percentile_interval, rank_p, wilson_interval
from babelscope.controls.bootstrap_draws import draw_items
from babelscope.errors import MeasurementError
from babelscope.languages import Language
from babelscope.probes.geometry.ridge import PENALTY, RidgeProbe
from babelscope.probes.geometry.sentences import Pooling, Sentences
from babelscope.probes.probe_evidence import SiteEvidence
from babelscope.sites import Site

CONTROL = "language labels shuffled within each sentence"


@dataclass(frozen=True, eq=False)
class LanguageProbe:
    """Accuracy of a linear language-identification probe on sentences it was not trained on."""

    __repr__ = shown_by()

    languages: tuple[Language, ...]
    sites: tuple[Site, ...]
    pooling: Pooling
    accuracy: Float64[Tensor, " depth"]
    """Over all languages and test sentences; chance is 1/n_language."""
    interval: tuple[Interval, ...]
    """95 % by depth; sentences are resampled, each with all its translations."""
    recall: Float64[Tensor, "language depth"]
    """Share of a language's test sentences recognised."""
    null: Float64[Tensor, " depth"]
    """Mean accuracy of probes trained and tested on shuffled labels."""
    p: Float64[Tensor, " depth"]
    n_train: int
    """Sentences, each in every language."""
    n_test: int
    draws: int
    seed: int

    def rows(self) -> list[SiteEvidence]:
        """One row per depth over all languages, and one per language and depth."""
        shared: dict[str, Any] = {
            "control": CONTROL,
            "note": f"{self.pooling} of tokens, {self.n_train} sentences in training",
        }
        rows = [
            SiteEvidence(
                claim="language identification, accuracy",
                language="",
                n=self.n_test * len(self.languages),
                estimate=float(self.accuracy[depth]),
                low=self.interval[depth].low,
                high=self.interval[depth].high,
                p=float(self.p[depth]),
                draws=self.draws,
                seed=self.seed,
                site=str(site),
                null=float(self.null[depth]),
                **shared,
            )
            for depth, site in enumerate(self.sites)
        ]
        for k, tag in enumerate(self.languages):
            for depth, site in enumerate(self.sites):
                share = float(self.recall[k, depth])
                low, high = wilson_interval(round(share * self.n_test), self.n_test)
                claim = "language identification, recall"
                row = SiteEvidence(
                    claim=claim,
                    language=tag,
                    n=self.n_test,
                    estimate=share,
                    low=low,
                    high=high,
                    site=str(site),
                    **shared,
                )
                rows.append(row)
        return rows


def split_sentences(n: int, *, test_share: float, seed: int) -> Bool[Tensor, " sentence"]:
    """True for test sentences; raises MeasurementError unless both parts hold two or more."""
    n_test = round(test_share * n)
    if not 2 <= n_test <= n - 2:
        raise MeasurementError(
            f"{n} sentences and a test share of {test_share} came; expected at least two sentences in each part; "
            "give more parallel text"
        )
    test = torch.zeros(n, dtype=torch.bool)
    test[torch.randperm(n, generator=torch.Generator().manual_seed(seed))[:n_test]] = True
    return test


def language_probe(
    sentences: Sentences,
    *,
    pooling: Pooling = "mean",
    test_share: float = 0.3,
    penalty: float = PENALTY,
    draws: int = 99,
    resamples: int = 500,
    seed: int = 0,
) -> LanguageProbe:
    """Train a linear probe for the language on some sentences and test it on others, at each depth.

    A sentence and all its translations are on one side of the split, so content cannot give the label away.
    The control permutes the languages of each sentence, in training and test alike, and trains anew.
    Raises MeasurementError where too few sentences are left on a side.
    """
    n, k = len(sentences.ids), len(sentences.languages)
    test = split_sentences(n, test_share=test_share, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    true_labels = rearrange(torch.arange(k).expand(n, k), "s k -> k s")
    shuffled = [
        rearrange(torch.stack([torch.randperm(k, generator=generator) for _ in range(n)]), "s k -> k s")
        for _ in range(draws)
    ]
    n_test = int(test.sum())
    resampled = draw_items(n_test, resamples, generator)
    right, null = [], []
    for depth in range(len(sentences.sites)):
        x = sentences.at(depth, pooling)
        sides = [rearrange(x[:, side], "k s h -> (k s) h") for side in (~test, test)]
        probe = RidgeProbe(sides[0], sides[1], penalty=penalty)
        right.append(_right(probe, true_labels, test))
        null.append(torch.stack([_right(probe, labels, test).double().mean() for labels in shuffled]))
    hits = torch.stack(right).double()
    accuracy, null_accuracy = hits.mean(dim=(1, 2)), torch.stack(null)
    by_sentence = hits.mean(dim=1)
    return LanguageProbe(
        languages=sentences.languages,
        sites=sentences.sites,
        pooling=pooling,
        accuracy=accuracy,
        interval=tuple(percentile_interval(row[resampled].mean(dim=1)) for row in by_sentence),
        recall=rearrange(hits.mean(dim=2), "d k -> k d"),
        null=null_accuracy.mean(dim=1),
        p=torch.tensor(
            [rank_p(float(a), row) for a, row in zip(accuracy, null_accuracy, strict=True)], dtype=torch.float64
        ),
        n_train=n - n_test,
        n_test=n_test,
        draws=draws,
        seed=seed,
    )


def _right(probe: RidgeProbe, labels: Tensor, test: Tensor) -> Bool[Tensor, "language sentence"]:
    """Whether each test sentence is given its label by a probe trained with these labels."""
    predicted = probe.predict(labels[:, ~test].reshape(-1), len(labels))
    return predicted.reshape(len(labels), -1) == labels[:, test]
