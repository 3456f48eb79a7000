"""One pass over parallel text that keeps a vector per sentence at every depth, for the geometric probes."""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import torch
from transformers import PreTrainedTokenizerBase

from babelscope.artifacts.shown import shown_by
from babelscope.artifacts.stream import LayerStream, form_used, without_units
from babelscope.artifacts.stream_forms import StreamForm
from babelscope.axes import Bool, Float, Float32, Float64, Tensor
from babelscope.corpus import (
    Batch,
    Corpus,
    Texts,
    TokenDocument,
    as_parallel,
    numbered,
    pad_of,
    tokenize_documents,
)
from babelscope.corpus.encoding import surround_of
from babelscope.errors import CorpusError, LanguageError, MeasurementError, SiteError
from babelscope.languages import Language, language_index
from babelscope.models import Encoder, Layout, encoder_of, family_of, layout_of
from babelscope.models.plain import CausalModel, check_model
from babelscope.models.text_length import USUAL_LENGTH, text_length
from babelscope.probes.streams import depth_sites
from babelscope.recording.site_sums import first_tokens
from babelscope.recording.stream_sums import StreamTally
from babelscope.recording.vectors import DocumentVectors, Weigh, mean_weights
from babelscope.recording.walk import walk
from babelscope.recording.watchers import ReadSite
from babelscope.sites import Site

Pooling = Literal["mean", "weighted", "last", "middle"]
"""How a sentence's tokens become one vector: their mean, their mean weighted by place 1 … T, the last one, or the one
at place (T + 1) // 2, a token within the sentence like any other."""


@dataclass(frozen=True, eq=False)
class Sentences:
    """Sentence vectors of several languages at every depth; made by `record_sentences`."""

    __repr__ = shown_by()

    languages: tuple[Language, ...]
    ids: tuple[str, ...]
    """Of the sentences; the same in every language, so row i means the same in all."""
    sites: tuple[Site, ...]
    """Of the depth axis: 0.resid_in, then resid_out of every layer."""
    vectors: dict[Pooling, Float32[Tensor, "language depth sentence hidden"]]
    later: dict[Pooling, Float32[Tensor, "language depth sentence hidden"]] | None = None
    """The same without each sentence's first token; NaN for a sentence of one token. None where it was not kept."""
    streams: tuple[LayerStream, ...] | None = None
    """What massive units and first tokens hold, by depth."""

    def forms(self, requested: StreamForm) -> tuple[Literal["whole", "ordinary"], ...]:
        """The form that is used at every depth, by the rule of `mean_direction`.

        Raises SiteError where the ordinary form is asked for and was not kept.
        """
        streams = self.streams or (None,) * len(self.sites)
        return tuple(form_used(stream, requested, site) for stream, site in zip(streams, self.sites, strict=True))

    def in_form(self, requested: StreamForm) -> "Sentences":
        """The same vectors, at depths of the ordinary form without first tokens and zero at massive units.

        Where some depth is of the ordinary form, sentences of one token are left out at all depths and languages.
        """
        depths = [depth for depth, form in enumerate(self.forms(requested)) if form == "ordinary"]
        if self.streams is None or self.later is None or not depths:
            return self
        long_enough = torch.stack(
            [value[:, depths[0]].isfinite().all(dim=2).all(dim=0) for value in self.later.values()]
        )
        long_enough = long_enough.all(dim=0)
        vectors: dict[Pooling, Tensor] = {pooling: value[:, :, long_enough] for pooling, value in self.vectors.items()}
        for depth in depths:
            for pooling, value in vectors.items():
                value[:, depth] = without_units(self.later[pooling][:, depth, long_enough], self.streams[depth].massive)
        ids = tuple(name for name, longer in zip(self.ids, long_enough.tolist(), strict=True) if longer)
        return replace(self, ids=ids, vectors=vectors, later=None, streams=None)

    def at(self, depth: int, pooling: Pooling = "mean") -> Float64[Tensor, "language sentence hidden"]:
        """All vectors at one depth."""
        if pooling not in self.vectors:
            raise MeasurementError(
                f"pooling {pooling!r} was not recorded; expected one of {', '.join(self.vectors)}; record it"
            )
        return self.vectors[pooling][:, depth].double()

    def index(self, language: str) -> int:
        """Place of a language; raises LanguageError if absent."""
        return language_index(language, self.languages, "language {tag} was not read", advice="add it")


def parallel_corpus(texts: Texts, *, sentences: int | None = None) -> Corpus:
    """The first sentences of parallel text; raises CorpusError or LanguageError for text that cannot be compared."""
    corpus = as_parallel(texts)
    if len(corpus) < 2:
        raise LanguageError(f"{', '.join(corpus)} came alone; expected at least two languages; add parallel text")
    if not corpus.parallel:
        raise CorpusError(
            f"{corpus.name}: nothing says that its sentences are translations of each other; expected parallel "
            "text: rows with the same ids, or lines read with parallel=True (--parallel); give such text"
        )
    if sentences is not None and sentences < 2:
        raise CorpusError(f"sentences {sentences} came; expected two or more of each language; take more")
    return corpus if sentences is None else corpus.head(sentences)


def record_sentences(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Texts,
    *,
    sentences: int = 200,
    poolings: Sequence[Pooling] = get_args(Pooling),
    max_length: int | None = None,
    special_tokens: bool = False,
    final_norm: bool = False,
    steered: Callable[[Language], AbstractContextManager[Any]] = lambda language: nullcontext(),
) -> Sentences:
    """Read the first sentences of parallel text once, and keep one vector per sentence, depth and pooling.

    model: a decoder; or an encoder of transformers, such as XLM-R, or a model that has one, such as mT5 or NLLB, whose
    encoder is read, each sentence with what its tokenizer puts around it.
    Pads, BOS and other special tokens are in no vector; place 1 is the first token that counts. Vectors are float32:
    8 · languages · sentences · (layers + 1) · hidden bytes per pooling, because a second vector is kept without each
    sentence's first token (see `Sentences.in_form`).
    special_tokens: BOS, and what else stands around a text, counts as a token of the sentence.
    final_norm: the last depth is read after the final norm. Both as in MEXA's script, arXiv:2410.05873.
    steered: what is open while text of a language is read, such as a steering of it.
    Raises CorpusError for text that is not parallel, or a sentence without a token; LanguageError for one language;
    SiteError for a model that is neither a decoder of a known family nor an encoder; MeasurementError for the final
    norm of an encoder, whose states are those that transformers hands out.
    """
    layout, corpus = layout_or_encoder(model), parallel_corpus(texts, sentences=sentences)
    if final_norm and isinstance(layout, Encoder):
        raise MeasurementError("final_norm came for an encoder; expected a decoder for it; leave final_norm out")
    sites = layout.sites if isinstance(layout, Encoder) else depth_sites(layout)
    length = (max_length or USUAL_LENGTH) if isinstance(layout, Encoder) else text_length(layout, max_length)
    ids = tuple(document.id for document in next(iter(corpus.values())))
    end = surround_of(tokenizer).suffix if isinstance(layout, Encoder) else ()
    text = [
        [closed(document, end) for document in tokenize_documents(tokenizer, part, k, max_length=length - len(end))]
        for k, part in enumerate(corpus.values())
    ]
    for tag, documents in zip(corpus, text, strict=True):
        empty = [document.id for document in documents if not document.n_counted]
        if empty:
            raise CorpusError(f"{tag}, sentence {empty[0]!r} has no token; expected text; drop it everywhere")
    if special_tokens:
        text = [[replace(document, counted=(True,) * len(document.tokens)) for document in part] for part in text]
    shape = (len(corpus), len(sites), len(ids), layout.d_hidden)
    vectors: dict[Pooling, Tensor] = {pooling: torch.empty(shape) for pooling in poolings}
    later_vectors: dict[Pooling, Tensor] = {pooling: torch.empty(shape) for pooling in poolings}
    tallies = [StreamTally(site, len(corpus), layout.d_hidden) for site in sites]
    languages = tuple(corpus)
    for k, documents in enumerate(text):
        all_tokens = DocumentVectors(sites, {p: WEIGHTS[p] for p in poolings}, {p: vectors[p][k] for p in poolings})
        later_tokens = DocumentVectors(
            sites, {p: without_first(WEIGHTS[p]) for p in poolings}, {p: later_vectors[p][k] for p in poolings}
        )
        watchers = [all_tokens, later_tokens, *tallies]
        if final_norm:
            watchers += [NormedVectors(part.weights, part.vectors) for part in (all_tokens, later_tokens)]
        with steered(languages[k]):
            walk(layout, [numbered(documents)], watchers, pad=pad_of(tokenizer))
    broken = [pooling for pooling, value in vectors.items() if not bool(torch.isfinite(value).all())]
    if broken:
        raise MeasurementError("a sentence's vector is NaN or infinite; expected numbers; check the weights and dtype")
    return Sentences(languages, ids, sites, vectors, later_vectors, tuple(tally.layer() for tally in tallies))


def layout_or_encoder(model: CausalModel) -> Layout | Encoder:
    """Where a decoder's sites are, or the encoder that a model is or has."""
    check_model(model)
    try:
        family_of(model.config)
        is_decoder = True
    except SiteError:
        is_decoder = False
    return layout_of(model) if is_decoder else encoder_of(model)


def closed(document: TokenDocument, end: tuple[int, ...]) -> TokenDocument:
    """With what ends a text, which does not count."""
    return replace(document, tokens=(*document.tokens, *end), counted=(*document.counted, *(False for _ in end)))


@dataclass(frozen=True, eq=False)
class NormedVectors:
    """Writes document vectors of what the final norm gives over those of the last depth; stands after the watcher that
    writes these.
    """

    weights: Mapping[str, Weigh]
    vectors: dict[str, Float[Tensor, "depth sentence hidden"]]

    @property
    def hooks(self) -> dict[Site, ReadSite]:
        """None: a pass gives its output by itself."""
        return {}

    def measure(
        self, batch: Batch, values: dict[Site, Tensor], hidden: Float[Tensor, "batch token hidden"]
    ) -> dict[str, Float64[Tensor, "batch hidden"]]:
        """A batch's pooled vectors."""
        counted, wide = batch.counted.to(hidden.device), hidden.double()
        return {name: torch.einsum("bt,bth->bh", weigh(counted), wide).cpu() for name, weigh in self.weights.items()}

    def add(self, batch: Batch, values: dict[str, Float64[Tensor, "batch hidden"]]) -> None:
        """Put a batch's documents into their places."""
        for name, pooled in values.items():
            self.vectors[name][-1, batch.places] = pooled.to(self.vectors[name].dtype)


def place_weights(counted: Bool[Tensor, "batch token"]) -> Float64[Tensor, "batch token"]:
    """Weights that grow with the place among the counted tokens; they sum to 1."""
    place = (counted.cumsum(dim=1) * counted).double()
    return place / place.sum(dim=1, keepdim=True)


def last_weights(counted: Bool[Tensor, "batch token"]) -> Float64[Tensor, "batch token"]:
    """1 for the last counted token."""
    place = counted.cumsum(dim=1) * counted
    return (place == place.amax(dim=1, keepdim=True)).double() * counted


def middle_weights(counted: Bool[Tensor, "batch token"]) -> Float64[Tensor, "batch token"]:
    """1 for the counted token at place (T + 1) // 2 of T."""
    place = counted.cumsum(dim=1) * counted
    return (place == (place.amax(dim=1, keepdim=True) + 1) // 2).double() * counted


WEIGHTS: dict[Pooling, Weigh] = {
    "mean": mean_weights,
    "weighted": place_weights,
    "last": last_weights,
    "middle": middle_weights,
}


def without_first(weigh: Weigh) -> Weigh:
    """The same weights without each sentence's first token; NaN for a sentence of one token."""

    def weigh_later(counted: Bool[Tensor, "batch token"]) -> Float64[Tensor, "batch token"]:
        later = counted & ~first_tokens(counted)
        return weigh(later).masked_fill(~later.any(dim=1, keepdim=True), math.nan)

    return weigh_later
