"""Which language to ask a question in: chosen by clusters of questions, tested on others, against chance."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from babelscope.axes import Bool, Float64, Tensor
from babelscope.controls import percentile_interval, rank_p
from babelscope.errors import MeasurementError
from babelscope.probes.probe_evidence import SiteEvidence

FEWEST_QUESTIONS = 20
"""Both halves of a split need some."""


class LanguageChoice(NamedTuple):
    """Share of right answers on questions that the choice has not seen, by how the language is chosen."""

    clusters: int
    questions: int
    by_cluster: float
    """The language that is best on the training half of the question's cluster."""
    low: float
    """Ends of the middle 95 % over splits: a range over splits of the same questions, no confidence interval."""
    high: float
    base: float
    """One language for all: the first."""
    best_single: float
    """The language that is best on the whole training half."""
    oracle: float
    """Right in any language: what no choice can pass."""
    null: float
    """By cluster, where questions are dealt out among the clusters anew, each with its answers in all languages: what
    choosing the largest of many accuracies gives where clusters mean nothing."""
    p: float
    """Rank of `by_cluster` among shuffles."""
    splits: int
    draws: int
    seed: int

    def rows(self) -> list[SiteEvidence]:
        """One row; the baselines are in its note."""
        return [
            SiteEvidence(
                claim="right where the language is chosen by cluster",
                language="",
                control="questions shuffled among the clusters, each with its answers in all languages",
                n=self.questions,
                estimate=self.by_cluster,
                low=self.low,
                high=self.high,
                p=self.p,
                null=self.null,
                draws=self.draws,
                seed=self.seed,
                note=f"{self.clusters} clusters; range over {self.splits} half-splits, no confidence interval; first "
                f"language alone {self.base:.3f}, best single {self.best_single:.3f}, any {self.oracle:.3f}",
            )
        ]


def choose_languages(
    right: Bool[Tensor, "language question"],
    vectors: Float64[Tensor, "question hidden"],
    *,
    clusters: int = 4,
    splits: int = 50,
    draws: int = 99,
    seed: int = 0,
) -> LanguageChoice:
    """Choose a language for each cluster of questions on one half, and score the choice on the other half.

    right: whether a question is answered right when it is asked in a language; the first language is the base.
    vectors: of the questions, in one language. k-means of the training half, initialised by k-means++; a test question
    goes to the nearest centre, and is asked in the language with most right answers in that cluster's training part
    (of equal ones, the one that is better on the whole training half).
    Nothing of the test half enters the choice. The null gives each question's answers, those of all languages together,
    to another question and chooses anew: the largest of many accuracies lies above chance by itself.
    Raises MeasurementError for fewer than twenty questions, or more clusters than a quarter of them.
    Source: arXiv:2505.14990, whose selection is reported without a null.
    """
    n = right.shape[1]
    check_choice(n, len(right), clusters)
    from sklearn.cluster import KMeans

    rng, answers, points = np.random.default_rng(seed), right.numpy().astype(float), vectors.numpy()
    parts = []
    for _ in range(splits):
        order = rng.permutation(n)
        train, test = order[: n // 2], order[n // 2 :]
        options: Any = {"n_init": 3, "random_state": int(rng.integers(2**31))}
        means = KMeans(clusters, **options).fit(points[train])
        parts.append((train, test, means.labels_, means.predict(points[test])))

    def scores(rows: np.ndarray, choose: Callable[..., np.ndarray]) -> np.ndarray:
        """Share of right answers on the test half of each split."""
        return np.array(
            [rows[choose(rows[:, train], of_train, of_test), test].mean() for train, test, of_train, of_test in parts]
        )

    chosen = scores(answers, best_by_cluster)
    # Whole columns: languages know the same questions. Rows shuffled each by itself make a language's lead in a cluster
    # noisier than it is, the choice worse, and the null too low.
    null = [scores(answers[:, rng.permutation(n)], best_by_cluster).mean() for _ in range(draws)]
    return LanguageChoice(
        clusters,
        n,
        float(chosen.mean()),
        *percentile_interval(chosen),
        float(answers[0].mean()),
        float(scores(answers, lambda train, _, of_test: np.full(len(of_test), train.mean(axis=1).argmax())).mean()),
        float(answers.max(axis=0).mean()),
        float(np.mean(null)),
        rank_p(float(chosen.mean()), null),
        splits,
        draws,
        seed,
    )


def check_choice(questions: int, languages: int, clusters: int) -> None:
    """Raise MeasurementError for too few questions, languages, or questions per cluster."""
    if questions < FEWEST_QUESTIONS or clusters > questions // 4 or languages < 2:
        raise MeasurementError(
            f"{questions} questions that {languages} languages share, and {clusters} clusters, came; expected "
            f"{FEWEST_QUESTIONS} or more in at least two languages, and at most a quarter as many clusters; give more "
            "facts, or leave the clusters out"
        )


def best_by_cluster(train: np.ndarray, of_train: np.ndarray, of_test: np.ndarray) -> np.ndarray:
    """The language of each test question: that of its cluster's best training accuracy."""
    overall = train.mean(axis=1)
    best = {
        cluster: int(np.lexsort((overall, train[:, of_train == cluster].mean(axis=1)))[-1])
        for cluster in np.unique(of_train)
    }
    return np.array([best[cluster] for cluster in of_test])
