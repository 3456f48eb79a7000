"""Vectors of a vocabulary's entries from the neighbours that they have in a text."""

from typing import NamedTuple

import numpy as np
import torch
from scipy.sparse import csr_array
from scipy.sparse.linalg import svds
from transformers import PreTrainedTokenizerBase

from babelscope.axes import Float64, Int64, Tensor
from babelscope.corpus import Corpus, encode_texts
from babelscope.errors import CorpusError

WINDOW = 5
"""Tokens to either side that count as neighbours."""
DIMENSIONS = 100


class TextVectors(NamedTuple):
    """Unit vectors of the entries that occur in a text."""

    ids: Int64[Tensor, " entry"]
    """Rising."""
    values: Float64[Tensor, "entry dim"]


def text_vectors(tokenizer: PreTrainedTokenizerBase, corpus: Corpus) -> TextVectors:
    """The leading singular vectors of the entries' positive pointwise mutual information.

    PPMI(a, b) = max(0, ln p(a, b) / (p(a) p(b))) over pairs at most five tokens apart; vector = U √S, of length 1.
    Source: Levy and Goldberg 2014, that word vectors factorise this matrix.
    """
    texts = [document.text for documents in corpus.values() for document in documents]
    documents = [np.array(encoding.ids) for encoding in encode_texts(tokenizer, texts)]
    token_ids, flat = np.unique(
        np.concatenate([*documents, np.zeros(0, dtype=np.int64)]).astype(int), return_inverse=True
    )
    n, edges = len(token_ids), np.cumsum([0, *(len(ids) for ids in documents)])
    if n < 3:
        raise CorpusError(f"{corpus.name}: {n} entries occur in the text; expected enough for vectors; add text")
    left, right = [], []
    for start, end in zip(edges[:-1], edges[1:], strict=True):
        for distance in range(1, min(WINDOW, end - start - 1) + 1):
            left.append(flat[start : end - distance])
            right.append(flat[start + distance : end])
    pairs = np.concatenate([*left, *right]), np.concatenate([*right, *left])
    counts = csr_array((np.ones(len(pairs[0])), pairs), shape=(n, n)).tocoo()
    counts.sum_duplicates()
    totals = np.bincount(pairs[0], minlength=n).astype(np.float64)
    row, column = counts.coords
    information = np.log(counts.data * totals.sum() / (totals[row] * totals[column])).clip(min=0)
    matrix = csr_array((information, (row, column)), shape=(n, n))
    # A start of ones: the solver's own is drawn from numpy's global state.
    u, s, _ = svds(matrix, k=min(DIMENSIONS, n - 1), v0=np.ones(n))
    values = torch.from_numpy(u * np.sqrt(s))
    return TextVectors(torch.from_numpy(token_ids), values / values.norm(dim=1, keepdim=True).clamp(min=1e-12))


def sparsemax(scores: Float64[Tensor, " entry"]) -> Float64[Tensor, " entry"]:
    """The nearest point of the simplex: weights that sum to 1, most of them 0.

    Source: Martins and Astudillo 2016, arXiv:1602.02068, algorithm 1.
    """
    ordered = scores.sort(descending=True).values
    sums = ordered.cumsum(0) - 1
    size = int((ordered * torch.arange(1, len(scores) + 1) > sums).sum())
    return (scores - sums[size - 1] / size).clamp(min=0)


def matching_pursuit(
    vector: Float64[Tensor, " dim"], table: Float64[Tensor, "entry dim"], atoms: int
) -> Float64[Tensor, " entry"]:
    """Weights, of `atoms` others at most, whose sum is nearest to a vector: orthogonal matching pursuit.

    The entry nearest to what is left is added, and all weights are fitted anew, until nothing is left.
    """
    chosen, weights, left = list[int](), torch.zeros(0, dtype=torch.float64), vector
    while len(chosen) < min(atoms, len(table)) and float(left.norm()) > 1e-9:
        near = (table @ left).abs()
        near[chosen] = -1
        chosen.append(int(near.argmax()))
        weights = torch.linalg.lstsq(table[chosen].T, vector[:, None], driver="gelsd").solution[:, 0]
        left = vector - weights @ table[chosen]
    out = torch.zeros(len(table), dtype=torch.float64)
    out[chosen] = weights
    return out
