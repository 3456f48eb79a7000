"""Likeness of meaning by the model's own middle layer."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from transformers import PreTrainedTokenizerBase

from babelscope.axes import Float64, Tensor
from babelscope.corpus import Document, numbered, tokenize_documents
from babelscope.errors import MeasurementError
from babelscope.evaluation.content import Measured, bootstrap_mean
from babelscope.models import layout_of
from babelscope.models.plain import CausalModel
from babelscope.models.text_length import text_length
from babelscope.recording.vectors import DocumentVectors
from babelscope.recording.walk import walk
from babelscope.sites import Site


class Similarity(NamedTuple):
    """Cosines of answers with their references, and with others'."""

    pairs: Measured
    """Mean cosine of an answer and its own reference; an empty answer's is 0."""
    chance: float
    """Mean cosine of an answer and all other references: what any text of the kind gets. NaN for a single pair."""
    layer: int
    cosines: tuple[float, ...]
    """By answer."""


def sentence_vectors(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    layer: int,
    *,
    max_length: int | None = None,
) -> Float64[Tensor, "text hidden"]:
    """Mean of a layer's `resid_out` over each text's tokens, special ones and the first of all left out; 0 without one.

    A text of a single token is that token.
    """
    layout, site = layout_of(model), Site(layer, "resid_out")
    max_length = text_length(layout, max_length)
    layout.check(site)
    documents = tokenize_documents(
        tokenizer, [Document(str(i), t) for i, t in enumerate(texts)], 0, max_length=max_length
    )
    # Without a BOS it is the first word's token that others look at when they look at nothing, many times as long as
    # the rest: with it, the cosine of two texts says how many tokens they have.
    documents = [
        replace(document, counted=(False, *document.counted[1:])) if any(document.counted[1:]) else document
        for document in documents
    ]
    filled = [document for document in numbered(documents) if document.n_counted]
    watcher = DocumentVectors.empty((site,), {"sum": Tensor.double}, len(texts), layout.d_hidden, torch.float64)
    walk(layout, [filled], [watcher])
    counts = torch.tensor([document.n_counted for document in documents], dtype=torch.float64)
    vectors = watcher.vectors["sum"][0] / counts[:, None]
    vectors[counts == 0] = 0
    return vectors


def semantic_similarity(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    answers: Sequence[str],
    references: Sequence[str],
    *,
    layer: int | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> Similarity:
    """Cosine of mean-pooled vectors of answers and references, by the model as it is: call it outside any steering.

    Residual vectors all share a large common part, so plain cosines are high for any two texts: the mean over all
    references is taken off both sides first, and `chance` stands beside the result.
    layer: None means the middle one, n_layers // 2.
    Raises MeasurementError unless there is one reference an answer.
    """
    if len(answers) != len(references) or not answers:
        raise MeasurementError(
            f"{len(answers)} answers came with {len(references)} references; expected one each, and at least one"
        )
    chosen = layout_of(model).n_layers // 2 if layer is None else layer
    answer_vectors, reference_vectors = (
        sentence_vectors(model, tokenizer, texts, chosen) for texts in (answers, references)
    )
    empty = ~answer_vectors.any(dim=1)
    centre = reference_vectors.mean(dim=0) if len(references) > 1 else torch.zeros_like(reference_vectors[0])
    cosines = F.normalize(answer_vectors - centre, dim=1) @ F.normalize(reference_vectors - centre, dim=1).T
    cosines[empty] = 0.0
    paired, n = cosines.diagonal(), len(answers)
    chance = float((cosines.sum() - paired.sum()) / (n * (n - 1))) if n > 1 else float("nan")
    return Similarity(
        bootstrap_mean(paired.tolist(), resamples=resamples, seed=seed), chance, chosen, tuple(paired.tolist())
    )
