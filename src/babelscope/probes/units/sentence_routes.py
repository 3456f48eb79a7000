"""What the routers of a mixture of experts do with each of some parallel sentences, read in one pass."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import reduce
from transformers import PreTrainedTokenizerBase

from babelscope.artifacts.shown import shown_by
from babelscope.axes import Float64, Tensor
from babelscope.corpus import Batch, Texts, numbered, pad_of, tokenize_documents
from babelscope.errors import CorpusError, SiteError
from babelscope.languages import Language
from babelscope.models import Layout, layout_of
from babelscope.models.plain import CausalModel
from babelscope.models.text_length import text_length
from babelscope.probes.geometry.sentences import parallel_corpus
from babelscope.recording.walk import walk
from babelscope.recording.watchers import ReadSite, SiteValue
from babelscope.sites import Site


@dataclass(frozen=True, eq=False)
class ParallelRouting:
    """What the routers of every layer do with each sentence; sentence i means the same in all languages."""

    __repr__ = shown_by()

    languages: tuple[Language, ...]
    weights: Float64[Tensor, "language layer sentence expert"]
    """Mean over a sentence's tokens of the softmax of the router's scores; sums to 1."""
    picks: Float64[Tensor, "language layer sentence expert"]
    """Share of a sentence's choices that fell on each expert; sums to 1."""
    entropy: Float64[Tensor, "language layer sentence"]
    """Mean over tokens of the entropy of that softmax, over its largest value log2(experts)."""
    consistency: Float64[Tensor, "language layer sentence"]
    """Share of experts that two tokens of a sentence have in common, mean over pairs; NaN for a single token."""


def record_routing(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Texts,
    *,
    sentences: int = 200,
    max_length: int | None = None,
) -> ParallelRouting:
    """Read parallel sentences once, and keep what the routers do with each.

    Pads, BOS and other special tokens do not count. Consistency of a sentence of T tokens with k experts each, of which
    c_e tokens meet expert e: Σ_e c_e (c_e − 1) / (T (T − 1) k).
    Raises SiteError for a dense model, CorpusError for text that is not parallel or a sentence without a token.
    """
    layout = layout_of(model)
    max_length = text_length(layout, max_length)
    if not layout.n_experts:
        raise SiteError(f"{model.config.model_type} is dense; expected a model with experts; probe heads or neurons")
    corpus = parallel_corpus(texts, sentences=sentences)
    n, languages = len(next(iter(corpus.values()))), tuple(corpus)
    watcher = SentenceRoutes.empty(layout, len(languages), n)
    for k, documents in enumerate(corpus.values()):
        encoded = tokenize_documents(tokenizer, documents, k, max_length=max_length)
        if empty := [document.id for document in encoded if not document.n_counted]:
            raise CorpusError(f"{languages[k]}, sentence {empty[0]!r} has no token; expected text; drop it everywhere")
        walk(layout, [numbered(encoded)], [watcher], pad=pad_of(tokenizer))
    return ParallelRouting(languages, watcher.weights, watcher.picks, watcher.entropy, watcher.consistency)


@dataclass(frozen=True, eq=False)
class SentenceRoutes:
    """Puts what routers do with each numbered sentence of one language after the other into its place."""

    layout: Layout
    weights: Float64[Tensor, "language layer sentence expert"]
    picks: Float64[Tensor, "language layer sentence expert"]
    entropy: Float64[Tensor, "language layer sentence"]
    consistency: Float64[Tensor, "language layer sentence"]

    @classmethod
    def empty(cls, layout: Layout, languages: int, sentences: int) -> "SentenceRoutes":
        """No sentence read yet."""
        blank = torch.full((languages, layout.n_layers, sentences), math.nan, dtype=torch.float64)
        by_expert = blank[..., None].expand(*blank.shape, layout.n_experts)
        return cls(layout, by_expert.clone(), by_expert.clone(), blank.clone(), blank.clone())

    @property
    def hooks(self) -> Mapping[Site, ReadSite]:
        """The scores of every router, and the choices where experts' neurons are read."""
        layers = range(self.layout.n_layers)
        return {Site(layer, "router"): read_scores for layer in layers} | {
            Site(layer, "mlp_gate"): self.read_choices for layer in layers
        }

    def read_choices(self, batch: Batch, site_value: SiteValue) -> tuple[Tensor, Tensor]:
        """Picks and consistency of each sentence."""
        assert site_value.routes is not None
        chosen = reduce(F.one_hot(site_value.routes, self.layout.n_experts), "b t k e -> b t e", "sum").double()
        counts, tokens = (chosen * site_value.counted[..., None]).sum(dim=1), site_value.counted.sum(dim=1).double()
        pairs = tokens * (tokens - 1) * site_value.routes.shape[-1]
        consistency = (counts * (counts - 1)).sum(dim=1) / pairs.where(pairs > 0, math.nan)
        return (counts / counts.sum(dim=1, keepdim=True)).cpu(), consistency.cpu()

    def add(self, batch: Batch, values: dict[Site, tuple[Tensor, Tensor]]) -> None:
        """Put a batch's sentences into their places."""
        language = batch.documents[0].language
        for site, (by_expert, by_sentence) in values.items():
            parts = (self.weights, self.entropy) if site.at == "router" else (self.picks, self.consistency)
            for total, part in zip(parts, (by_expert, by_sentence), strict=True):
                total[language, site.layer or 0, batch.places] = part


def read_scores(batch: Batch, site_value: SiteValue) -> tuple[Tensor, Tensor]:
    """Mean softmax of the scores over each sentence's tokens, and its entropy over log2(experts)."""
    share = torch.softmax(site_value.value.double(), dim=-1)
    even = site_value.counted.double() / site_value.counted.sum(dim=1, keepdim=True)
    entropy = torch.special.entr(share).sum(dim=-1) / math.log(share.shape[-1])
    return torch.einsum("bt,bte->be", even, share).cpu(), (even * entropy).sum(dim=1).cpu()
