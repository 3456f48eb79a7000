"""Other reasons to rank a passage for a query: shared tokens, alike vectors, and plain length."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics.pairwise import cosine_similarity
from transformers import PreTrainedTokenizerBase

from babelscope.axes import Float64
from babelscope.corpus import TokenDocument
from babelscope.evaluation.similarity import sentence_vectors
from babelscope.models.plain import CausalModel

SATURATION, LENGTH_SHARE = 1.5, 0.75
"""k1 and b of BM25."""


def tfidf_cosines(
    queries: Sequence[TokenDocument], passages: Sequence[TokenDocument]
) -> Float64[np.ndarray, "query passage"]:
    """Cosines of scikit-learn's TF-IDF weights of the model's tokens, fitted on the passages."""
    analyzer: Any = lambda document: document.tokens  # noqa: E731 - scikit-learn's own types know names alone
    vectorizer = TfidfVectorizer(analyzer=analyzer)
    fitted = vectorizer.fit_transform(passages)
    return cosine_similarity(vectorizer.transform(queries), fitted)


def bm25(queries: Sequence[TokenDocument], passages: Sequence[TokenDocument]) -> Float64[np.ndarray, "query passage"]:
    """Σ over a query's tokens of idf · f (k1 + 1) / (f + k1 (1 - b + b · length / mean length)), k1 1.5, b 0.75.

    f: how often the passage has the token. idf = ln(1 + (N - n + ½) / (n + ½)) for n of N passages that have it.
    Source: Robertson and Zaragoza 2009, The Probabilistic Relevance Framework.
    """
    counts = [Counter(passage.tokens) for passage in passages]
    lengths = np.array([len(passage.tokens) for passage in passages])
    dampened = SATURATION * (1 - LENGTH_SHARE + LENGTH_SHARE * lengths / lengths.mean())
    scores = np.zeros((len(queries), len(passages)))
    for row, query in enumerate(queries):
        for token, times in Counter(query.tokens).items():
            often = np.array([count[token] for count in counts], dtype=float)
            present = int((often > 0).sum())
            idf = np.log(1 + (len(passages) - present + 0.5) / (present + 0.5))
            scores[row] += times * idf * often * (SATURATION + 1) / (often + dampened)
    return scores


def vector_cosines(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    queries: Sequence[str],
    passages: Sequence[str],
    layer: int,
    *,
    max_length: int,
) -> Float64[np.ndarray, "query passage"]:
    """Cosines of mean states of a layer, the passages' mean taken off both sides."""
    vectors = [
        sentence_vectors(model, tokenizer, texts, layer, max_length=max_length).numpy() for texts in (queries, passages)
    ]
    return cosine_similarity(*(side - vectors[1].mean(axis=0) for side in vectors))
