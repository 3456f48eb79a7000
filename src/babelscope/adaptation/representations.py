"""How far a language's sentences move inside the model when it is adapted."""

import torch
import torch.nn.functional as F

from babelscope.axes import Float64, Tensor
from babelscope.evaluation import HeldOut
from babelscope.models import Layout
from babelscope.recording.vectors import DocumentVectors, mean_weights
from babelscope.recording.walk import walk
from babelscope.sites import Site

WATCHED = 100
"""Sentences of each language whose means are compared: a mean over them is steady, and all languages fit in memory."""


def first_documents(held_out: HeldOut) -> HeldOut:
    """The first `WATCHED` documents of held-out text."""
    tokens, n_bytes = held_out.tokens[:WATCHED], held_out.n_bytes[:WATCHED]
    return held_out._replace(documents=held_out.documents[:WATCHED], tokens=tokens, n_bytes=n_bytes)


def sentence_means(layout: Layout, held_out: HeldOut) -> Float64[Tensor, "layer document hidden"]:
    """Mean of resid_out over each document's counted tokens, in the order of the text."""
    sites = tuple(Site(layer, "resid_out") for layer in range(layout.n_layers))
    watcher = DocumentVectors.empty(
        sites, {"mean": mean_weights}, len(held_out.documents), layout.d_hidden, torch.float64
    )
    walk(layout, [held_out.documents], [watcher], pad=held_out.pad)
    return watcher.vectors["mean"]


def mean_cosine(
    before: Float64[Tensor, "layer document hidden"], after: Float64[Tensor, "layer document hidden"]
) -> Float64[Tensor, " layer"]:
    """Mean over documents of the cosine between a sentence's mean before and after."""
    return F.cosine_similarity(before, after, dim=-1).mean(dim=1)
