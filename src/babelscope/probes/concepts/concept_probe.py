"""Which texts have a concept, and the direction of the stream that tells them from others."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
import torch

from babelscope.axes import Bool, Float64, Tensor
from babelscope.controls import rank_p
from babelscope.errors import CorpusError

Concept = Literal["questions", "digits"]
QUESTION_MARKS = ("?", "？", "؟")
CLOSING = " \u00a0\"'»”’)）」』"


def has_concept(concept: Concept) -> Callable[[str], bool]:
    """Whether a text is a question (its last sign is a question mark), or has a digit of any script."""
    if concept == "questions":
        return lambda text: text.rstrip(CLOSING).endswith(QUESTION_MARKS)
    return lambda text: any(letter.isdecimal() for letter in text)


class ConceptDirection(NamedTuple):
    """The normal of a linear classifier of documents, and how well it tells others apart."""

    vector: Float64[Tensor, " hidden"]
    """Unit length."""
    accuracy: float
    """Mean of the recalls of both classes, on folds that were not trained on."""
    null: float
    """Mean of the same with labels shuffled."""
    p: float


def concept_direction(
    rows: Float64[Tensor, "document hidden"],
    labels: Bool[Tensor, " document"],
    *,
    folds: int = 5,
    draws: int = 19,
    seed: int = 0,
) -> ConceptDirection:
    """Logistic regression without a bias on centred rows; folds and shuffled labels say what it is worth.

    Raises CorpusError for fewer documents of a class than folds.
    """
    from sklearn.linear_model import LogisticRegression

    fewest = min(int(labels.sum()), int((~labels).sum()))
    if fewest < folds:
        raise CorpusError(f"{fewest} documents with, or without, the concept; expected {folds} of each; give more text")
    x = rows - rows.mean(dim=0)
    x = (x / x.norm(dim=1).square().mean().sqrt()).numpy()

    def fitted(chosen: np.ndarray, of: np.ndarray) -> LogisticRegression:
        model = LogisticRegression(fit_intercept=False, class_weight="balanced", C=10.0, max_iter=1000)
        return model.fit(x[chosen], of[chosen])

    def accuracy(of: np.ndarray, rng: np.random.Generator) -> float:
        fold = np.zeros(len(of), dtype=np.int64)
        for value in (False, True):
            members = np.flatnonzero(of == value)
            fold[rng.permutation(members)] = np.arange(len(members)) % folds
        right = np.concatenate([fitted(fold != k, of).predict(x[fold == k]) == of[fold == k] for k in range(folds)])
        truth = np.concatenate([of[fold == k] for k in range(folds)])
        return float((right[truth].mean() + right[~truth].mean()) / 2)

    truth, rng = labels.numpy(), np.random.default_rng(seed)
    nulls = [accuracy(rng.permutation(truth), rng) for _ in range(draws)]
    measured = accuracy(truth, rng)
    weight = torch.from_numpy(fitted(np.ones(len(truth), dtype=bool), truth).coef_[0]).double()
    return ConceptDirection(weight / weight.norm(), measured, float(np.mean(nulls)), rank_p(measured, nulls))
