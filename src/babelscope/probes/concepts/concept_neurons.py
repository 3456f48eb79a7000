"""Neurons that fire for the same sentences in every language: what they answer to is meaning, or what goes with it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from einops import einsum, reduce
from transformers import PreTrainedTokenizerBase

from babelscope.artifacts.shown import shown_by
from babelscope.axes import Float64, Int64, Tensor
from babelscope.controls import Evidence, benjamini_hochberg, percentile_interval
from babelscope.controls.bootstrap_draws import draw_items
from babelscope.corpus import Batch, Corpus, Texts, as_parallel, pad_of, token_windows, tokenize_documents
from babelscope.errors import CorpusError, LanguageError, SiteError
from babelscope.languages import Language
from babelscope.models import Layout, layout_of
from babelscope.models.plain import CausalModel
from babelscope.models.text_length import text_length
from babelscope.probes.units.removal import effect_hooks
from babelscope.recording.walk import walk
from babelscope.recording.watchers import ReadSite
from babelscope.sites import Site

LENGTH_BINS = 5
"""Sentences are permuted among those of like length, because a long one moves every neuron more."""
Q_LEVEL = 0.05


@dataclass(frozen=True, eq=False)
class ConceptNeurons:
    """Agreement of each neuron's strongest sentences across languages, against permuted sentences."""

    __repr__ = shown_by()

    languages: tuple[Language, ...]
    top: Int64[Tensor, "layer language neuron rank"]
    """Places of the strongest sentences of each neuron in each language, strongest first; -1 where it moves no more."""
    agreement: Float64[Tensor, "layer neuron"]
    """Mean over pairs of languages of the share of strongest sentences that both have."""
    null: Float64[Tensor, " layer"]
    """Mean agreement with sentences permuted within bins of length."""
    q: Float64[Tensor, "layer neuron"]
    """From p-values pooled over a layer's neurons and draws; Benjamini-Hochberg over all neurons."""
    sentences: int
    across: Literal["languages", "scripts"]
    draws: int
    seed: int

    def rows(self) -> list[Evidence]:
        """One row per layer: share of concept neurons, those with q <= 0.05; the interval is over neurons."""
        rows = []
        for layer, q in enumerate(self.q):
            shared, mean = (q <= Q_LEVEL).double(), float(self.agreement[layer].mean())
            generator = torch.Generator().manual_seed(self.seed + layer)
            picks = draw_items(len(q), 200, generator)
            low, high = percentile_interval(shared[picks].mean(dim=1))
            rows.append(
                Evidence(
                    claim=f"share of concept neurons in layer {layer}",
                    language="",
                    control="sentences permuted within bins of length",
                    n=len(q),
                    estimate=float(shared.mean()),
                    low=low,
                    high=high,
                    draws=self.draws,
                    seed=self.seed,
                    note=f"n in neurons; mean agreement {mean:.4f}, permuted {float(self.null[layer]):.4f}, "
                    f"{self.sentences} sentences, pairs across {self.across}",
                )
            )
        return rows


def concept_neurons(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Texts,
    *,
    strongest: int = 10,
    across: Literal["languages", "scripts"] = "languages",
    draws: int = 19,
    max_length: int | None = None,
    seed: int = 0,
) -> ConceptNeurons:
    """Find neurons whose strongest sentences are translations of each other beyond chance.

    A sentence's score is the exact effect of removing the neuron, a root mean square over its tokens, so that length
    does not add up; only the `strongest` of each neuron and language are kept while text streams by.
    agreement = mean over pairs (a, b) of |T_a ∩ T_b| / strongest. A sentence on which a neuron does nothing is none of
    its strongest: a dead one agrees with nothing. across="scripts": only pairs written in different scripts, which
    share no strings but digits and signs.
    Control: in each language the sentences are permuted among those of like length, the same for all neurons.
    Raises CorpusError for text that is not parallel, LanguageError where there is no pair, SiteError for an MoE.
    """
    layout, corpus = layout_of(model), as_parallel(texts)
    max_length = text_length(layout, max_length)
    if layout.n_experts:
        raise SiteError(f"{model.config.model_type} is a mixture of experts; expected a dense model")
    weight = pair_weights(corpus, across)
    n = len(next(iter(corpus.values())))
    if not corpus.parallel or n < 2 * strongest:
        raise CorpusError(
            f"{corpus.name}: {n} sentences, parallel: {corpus.parallel}; expected parallel text (ids, or --parallel) "
            f"of {2 * strongest} sentences; give more, or a smaller `strongest`"
        )
    places = {document.id: place for place, document in enumerate(next(iter(corpus.values())))}
    text = token_windows(tokenizer, corpus, tokens_per_language=None, max_length=max_length)
    with effect_hooks(layout) as hooks:
        watcher = TopSentences(layout, hooks, len(corpus), strongest, places)
        walk(layout, text, [watcher], pad=pad_of(tokenizer))
    top = watcher.top.where(watcher.value > 0, -1)
    bins = sentence_length_bins(tokenizer, corpus, max_length)
    return compare_tops(top, weight, bins, tuple(corpus), across, draws, seed)


class TopSentences:
    """The strongest sentences of each neuron in each language so far."""

    def __init__(
        self,
        layout: Layout,
        hooks: Mapping[Site, ReadSite],
        languages: int,
        strongest: int,
        places: Mapping[str, int],
    ) -> None:
        shape = (layout.n_layers, languages, layout.d_neuron, strongest)
        self.hooks, self.places = hooks, places
        self.value, self.top = torch.full(shape, -math.inf, dtype=torch.float64), torch.zeros(shape, dtype=torch.int64)

    def add(self, batch: Batch, values: dict[Site, Float64[Tensor, "batch neuron"]]) -> None:
        """Let a batch of one language compete."""
        k, strongest = batch.documents[0].language, self.value.shape[-1]
        ids = torch.tensor([self.places[document.id] for document in batch.documents])
        for site, effect in values.items():
            value, top = self.value[site.layer or 0], self.top[site.layer or 0]
            values_before_and_now = torch.cat([value[k], effect.T], dim=1)
            ids_before_and_now = torch.cat([top[k], ids.expand(effect.shape[1], -1)], dim=1)
            value[k], order = values_before_and_now.topk(strongest, dim=1)
            top[k] = ids_before_and_now.gather(1, order)


def pair_weights(corpus: Corpus, across: str) -> Float64[Tensor, "language language"]:
    """1 for pairs that are compared; raises LanguageError where there is none."""
    tags = tuple(corpus)
    pairs = torch.tensor(
        [[a != b and (across == "languages" or a.script != b.script) for b in tags] for a in tags], dtype=torch.float64
    )
    if not bool(pairs.any()):
        raise LanguageError(f"{', '.join(tags)} came; expected at least two that differ in {across}; add another")
    return pairs


def sentence_length_bins(
    tokenizer: PreTrainedTokenizerBase, corpus: Corpus, max_length: int
) -> Int64[np.ndarray, " sentence"]:
    """Bin of each sentence by its mean number of tokens over the languages; bins hold equally many."""
    lengths = np.mean(
        [
            [len(document.tokens) for document in tokenize_documents(tokenizer, documents, 0, max_length=max_length)]
            for documents in corpus.values()
        ],
        axis=0,
    )
    bins = np.zeros(len(lengths), dtype=np.int64)
    for number, members in enumerate(np.array_split(np.argsort(lengths, kind="stable"), LENGTH_BINS)):
        bins[members] = number
    return bins


def agreement_of(
    top: Int64[Tensor, "language neuron rank"], weight: Float64[Tensor, "language language"], sentences: int
) -> Float64[Tensor, " neuron"]:
    """Mean over weighted pairs of the share of strongest sentences in common; -1 is no sentence."""
    # Whole numbers below 2²⁴: float32 adds them exactly, at half the memory. The last place is for no sentence.
    member = torch.zeros(*top.shape[:2], sentences + 1).scatter_(2, top.where(top >= 0, sentences), 1.0)[..., :-1]
    weighted_members = einsum(weight.float(), member, "a b, b j s -> a j s")
    shared = reduce(weighted_members.mul_(member), "a j s -> j", "sum").double()
    return shared / weight.sum() / top.shape[2]


def compare_tops(
    top: Int64[Tensor, "layer language neuron rank"],
    weight: Float64[Tensor, "language language"],
    bins: Int64[np.ndarray, " sentence"],
    languages: Sequence[Language],
    across: Literal["languages", "scripts"],
    draws: int,
    seed: int,
) -> ConceptNeurons:
    """Agreement, null and q-values of every neuron."""
    n, rng = len(bins), np.random.default_rng(seed)
    agreement = torch.stack([agreement_of(layer, weight, n) for layer in top])
    nulls = []
    for _ in range(draws):
        renamed = torch.stack([torch.from_numpy(permute_within(bins, rng)) for _ in languages])
        permuted = [torch.stack([renamed[k][ids].where(ids >= 0, -1) for k, ids in enumerate(layer)]) for layer in top]
        nulls.append(torch.stack([agreement_of(layer, weight, n) for layer in permuted]))
    null = torch.stack(nulls, dim=1).flatten(start_dim=1).sort(dim=1).values
    above = null.shape[1] - torch.searchsorted(null, agreement - 1e-12)
    p = (1 + above).double() / (1 + null.shape[1])
    return ConceptNeurons(
        languages=tuple(languages),
        top=top,
        agreement=agreement,
        null=null.mean(dim=1),
        q=benjamini_hochberg(p).reshape(p.shape),
        sentences=n,
        across=across,
        draws=draws,
        seed=seed,
    )


def permute_within(bins: Int64[np.ndarray, " sentence"], rng: np.random.Generator) -> Int64[np.ndarray, " sentence"]:
    """A random permutation that keeps every sentence in its bin."""
    order = np.arange(len(bins))
    for number in np.unique(bins):
        members = np.flatnonzero(bins == number)
        order[members] = rng.permutation(members)
    return order
