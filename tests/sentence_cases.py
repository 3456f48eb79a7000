"""Sentence vectors made by hand, for tests of the geometric probes."""

from dataclasses import replace

import numpy as np
import torch

from babelscope.artifacts.stream import BINS, LayerStream
from babelscope.languages import Language
from babelscope.probes.geometry.sentences import Sentences
from babelscope.sites import Site

FIVE = ("en", "de", "fr", "ru", "uk")


def made_sentences(vectors, languages=FIVE):
    """The same vectors [language, depth, sentence, hidden] for every pooling."""
    found = torch.as_tensor(vectors).float()
    sites = (Site(0, "resid_in"), *(Site(layer, "resid_out") for layer in range(found.shape[1] - 1)))
    ids = tuple(str(i) for i in range(found.shape[2]))
    vectors = {"mean": found, "weighted": found, "last": found, "middle": found}
    return Sentences(tuple(Language(tag) for tag in languages), ids, sites, vectors)


def noise(languages=5, depths=2, sentences=60, hidden=24, seed=0):
    """Vectors without any structure."""
    return torch.randn(languages, depths, sentences, hidden, generator=torch.Generator().manual_seed(seed))


def with_streams(vectors, rest):
    """Sentences whose depth 1 holds units that are massive in the rest."""
    sentences = made_sentences(vectors)
    later = {pooling: torch.as_tensor(rest).float() for pooling in sentences.vectors}
    streams = []
    for depth in range(vectors.shape[1]):
        rows = torch.nan_to_num(later["mean"][:, depth].double())
        count, zero = torch.full((5,), rows.shape[1]), torch.zeros(5, rows.shape[2], dtype=torch.float64)
        lengths = torch.zeros(5, BINS, dtype=torch.int64)
        streams.append(LayerStream(2 * count, count, rows.sum(1), rows.square().sum(1), zero, zero, lengths))
    return replace(sentences, later=later, streams=tuple(streams))


def mexa_by_hand(x, y):
    """The published loop: every sentence against all others, row and column."""
    hits = 0
    for i in range(len(x)):
        own = x[i] @ y[i] / np.linalg.norm(x[i]) / np.linalg.norm(y[i])
        row = [x[i] @ y[j] / np.linalg.norm(x[i]) / np.linalg.norm(y[j]) for j in range(len(x)) if j != i]
        column = [x[j] @ y[i] / np.linalg.norm(x[j]) / np.linalg.norm(y[i]) for j in range(len(x)) if j != i]
        hits += own > max(row) and own > max(column)
    return hits / len(x)
