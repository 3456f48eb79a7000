"""One MEXA score per language: alignment with a pivot, pooled over depths, and what it predicts of a task's score."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch

from babelscope.artifacts.shown import shown_by
from babelscope.axes import Bool, Float64, Tensor
from babelscope.controls import Interval, percentile_interval, rank_p
from babelscope.controls.bootstrap_draws import draw_items
from babelscope.corpus import text_lines
from babelscope.errors import CorpusError, LanguageError, MeasurementError
from babelscope.languages import Language
from babelscope.probes.geometry.alignment import CONTROL, cosine_matrix, mutual_best
from babelscope.probes.geometry.sentences import Pooling, Sentences
from babelscope.probes.probe_evidence import SiteEvidence

DepthPooling = Literal["mean", "max"]
"""How the values of all depths become one number."""
FEWEST_SCORES = 4
"""Languages with a task score, the pivot aside: fewer have no interval of a correlation."""


class MexaScore(NamedTuple):
    """One language's alignment with the pivot as one number."""

    language: Language
    estimate: float
    interval: Interval
    """95 %, bootstrap over sentences."""
    null: float
    """Mean over random pairings of the sentences, pooled over depths in the same way."""
    p: float
    predicted: float
    """Score in the task that is expected of the language: estimate times the pivot's own; NaN without task scores."""
    task: float
    """Score in the task that was measured; NaN where none came."""


class TaskCorrelation(NamedTuple):
    """Pearson's correlation over languages of predicted with measured task scores."""

    r: float
    interval: Interval
    """Fisher's, 95 %: tanh(artanh r ± 1.96 / √(n - 3))."""
    p: float
    """Rank of r when languages exchange their task scores, one-sided."""
    languages: int


@dataclass(frozen=True, eq=False)
class MexaScores:
    """The score of every language but the pivot."""

    __repr__ = shown_by()

    scores: tuple[MexaScore, ...]
    against: Language
    over: DepthPooling
    correlation: TaskCorrelation | None
    """None where too few task scores came."""
    sentences: int
    draws: int
    seed: int

    def rows(self) -> list[SiteEvidence]:
        """One row per language, and one of the correlation with task scores where they came."""
        rows = [
            SiteEvidence(
                claim=f"alignment, MEXA, {self.over} over depths",
                language=score.language,
                control=CONTROL,
                n=self.sentences,
                estimate=score.estimate,
                low=score.interval.low,
                high=score.interval.high,
                p=score.p,
                draws=self.draws,
                seed=self.seed,
                against=self.against,
                null=score.null,
                note=""
                if np.isnan(score.predicted)
                else f"predicts a task score of {score.predicted:.4f}; measured {score.task:.4f}",
            )
            for score in self.scores
        ]
        if self.correlation is not None:
            row = SiteEvidence(
                claim=f"predicted task scores correlate with measured ones, MEXA, {self.over} over depths",
                language="",
                control="languages exchange their task scores",
                n=self.correlation.languages,
                estimate=self.correlation.r,
                low=self.correlation.interval.low,
                high=self.correlation.interval.high,
                p=self.correlation.p,
                draws=self.draws,
                seed=self.seed,
                against=self.against,
                null=0.0,
                note="Pearson, n in languages",
            )
            rows.append(row)
        return rows


def mexa_scores(
    sentences: Sentences,
    *,
    against: str = "en",
    pooling: Pooling = "weighted",
    over: DepthPooling = "mean",
    task_scores: Mapping[str, float] | Mapping[Language, float] | None = None,
    draws: int = 999,
    resamples: int = 1000,
    seed: int = 0,
) -> MexaScores:
    """MEXA of each language with the pivot, pooled over all depths, and the task score that it predicts.

    score(k) = mean or max over depths d of MEXA_d(k, pivot); predicted(k) = score(k) · task score of the pivot.
    The factor is the same for all languages of one model: it makes models comparable and leaves the correlation over
    languages as it is.
    over: the paper takes the maximum for Belebele and the mean for ARC.
    task_scores: {tag: score}, the pivot's among them; from `read_task_scores`.
    As in the authors' script where `sentences` are of `record_sentences(..., special_tokens=True, final_norm=True)`.
    Raises LanguageError for a pivot that was not read or has no task score, MeasurementError for fewer than four
    sentences or a constant list of task scores.
    Source: Kargaran et al. 2025, arXiv:2410.05873.
    """
    n, base = len(sentences.ids), sentences.index(against)
    if n < 4:
        raise MeasurementError(f"{n} parallel sentences came; expected at least 4, better 100; give more text")
    tasks = {Language.parse(tag): float(score) for tag, score in (task_scores or {}).items()}
    pivot = sentences.languages[base]
    if tasks and pivot not in tasks:
        raise LanguageError(f"task scores of {', '.join(tasks)} came; expected that of {pivot} too; add it")
    generator = torch.Generator().manual_seed(seed)
    shuffles = torch.stack([torch.randperm(n, generator=generator) for _ in range(draws)])
    resampled = draw_items(n, resamples, generator)
    scores = []
    for k, tag in enumerate(sentences.languages):
        if k == base:
            continue
        best = torch.stack([best_pairs(sentences, depth, pooling, base, k) for depth in range(len(sentences.sites))])
        hits = best.diagonal(dim1=1, dim2=2).double()
        estimate = float(pool_depths(hits.mean(dim=1), over))
        null = pool_depths(best[:, torch.arange(n), shuffles].double().mean(dim=2), over)
        interval = percentile_interval(pool_depths(hits[:, resampled].mean(dim=2), over))
        scores.append(
            MexaScore(
                language=tag,
                estimate=estimate,
                interval=interval,
                null=float(null.mean()),
                p=rank_p(estimate, null),
                predicted=estimate * tasks.get(pivot, float("nan")),
                task=tasks.get(tag, float("nan")),
            )
        )
    pairs = [(score.predicted, score.task) for score in scores if not np.isnan(score.task)]
    correlation = correlate_scores(pairs, draws=draws, seed=seed) if len(pairs) >= FEWEST_SCORES else None
    return MexaScores(tuple(scores), pivot, over, correlation, n, draws, seed)


def best_pairs(
    sentences: Sentences, depth: int, pooling: Pooling, first: int, second: int
) -> Bool[Tensor, "sentence sentence"]:
    """Pairs of sentences of two languages that are each other's nearest at one depth."""
    vectors = sentences.at(depth, pooling)
    return mutual_best(cosine_matrix(vectors[first], vectors[second]))


def pool_depths(values: Float64[Tensor, "depth ..."], over: DepthPooling) -> Float64[Tensor, "..."]:
    """Mean or maximum over the first axis."""
    return values.mean(dim=0) if over == "mean" else values.amax(dim=0)


def correlate_scores(pairs: list[tuple[float, float]], *, draws: int, seed: int) -> TaskCorrelation:
    """Pearson's r of pairs, Fisher's interval, and its rank among random pairings.

    Raises MeasurementError where one side is constant.
    """
    predicted, measured = (np.array(side, dtype=np.float64) for side in zip(*pairs, strict=True))
    if np.ptp(predicted) == 0 or np.ptp(measured) == 0:
        raise MeasurementError("all languages have the same score; expected two scores that differ; add languages")
    standard = [(side - side.mean()) / np.linalg.norm(side - side.mean()) for side in (predicted, measured)]
    r = float(standard[0] @ standard[1])
    rng = np.random.default_rng(seed)
    null = np.array([standard[0] @ rng.permutation(standard[1]) for _ in range(draws)])
    centre, arm = np.arctanh(np.clip(r, -1 + 1e-15, 1 - 1e-15)), 1.96 / np.sqrt(len(pairs) - 3)
    interval = Interval(float(np.tanh(centre - arm)), float(np.tanh(centre + arm)))
    return TaskCorrelation(r, interval, rank_p(r, null), len(pairs))


def read_task_scores(path: Path) -> dict[Language, float]:
    """Scores in a task by language: a line `tag<TAB>score` for each.

    Raises CorpusError for a file that is not of this form, or has a language twice; LanguageError for a bad tag.
    """
    scores = dict[Language, float]()
    for number, line in text_lines(path):
        if not line.strip():
            continue
        name, _, cell = line.partition("\t")
        tag = Language.parse(name.strip())
        try:
            score = float(cell)
        except ValueError as err:
            raise CorpusError(
                f"{path}, line {number}: {line[:60]!r} came; expected a language tag, a tab and a number; correct it"
            ) from err
        if tag in scores or not np.isfinite(score):
            raise CorpusError(f"{path}, line {number}: {tag} has two scores or none; expected a number; correct it")
        scores[tag] = score
    if not scores:
        raise CorpusError(f"{path} has no line; expected a language tag, a tab and a number in each; fill it")
    return scores
