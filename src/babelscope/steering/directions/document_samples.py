"""One streamed pass of labelled text: the mean activation, or the mean of every feature, of each document."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from transformers import PreTrainedTokenizerBase

from babelscope.artifacts import LoadedSAE, Origin
from babelscope.artifacts.shown import shown_by
from babelscope.artifacts.stream import STREAM_SITES, LayerStream, form_used, without_units
from babelscope.artifacts.stream_forms import StreamForm
from babelscope.axes import Float32, Float64, Int64, Tensor
from babelscope.corpus import Batch, Corpus, Texts, TokenDocument, as_corpus, tokenize_documents
from babelscope.errors import ArtifactError, CorpusError, MeasurementError, SiteError
from babelscope.languages import Language, language_index
from babelscope.models import Layout, layout_of, origin_of
from babelscope.models.plain import CausalModel
from babelscope.models.text_length import text_length
from babelscope.recording.site_sums import first_tokens
from babelscope.recording.stream_sums import StreamTally
from babelscope.recording.walk import walk
from babelscope.recording.watchers import ReadSite, SiteValue
from babelscope.sites import NEURON_SITES, Site


@dataclass(frozen=True, eq=False)
class DocumentMeans:
    """Each document's mean at one site over its counted tokens (pads, BOS and other special tokens out)."""

    __repr__ = shown_by()

    site: Site
    origin: Origin
    languages: tuple[Language, ...]
    value: Float32[Tensor, "document unit"]
    language: Int64[Tensor, " document"]
    """Place in `languages`."""
    ids: tuple[str, ...]
    """Document ids; equal ids in two languages mean parallel text."""
    norm: Float64[Tensor, " language"]
    """Mean over tokens of the Euclidean norm."""
    later: Float32[Tensor, "document unit"] | None = None
    """Stream sites only: means without the first counted token; NaN for a document of one token."""
    stream: LayerStream | None = None
    """Stream sites only: what massive units and first tokens hold."""

    def index(self, language: str) -> int:
        """Place of a language; raises LanguageError if absent."""
        return language_index(language, self.languages, "language {tag} has no documents here")

    def in_form(self, requested: StreamForm) -> "DocumentMeans":
        """The same in a form: "ordinary" without first tokens, documents of one token left out, massive units zero.

        "auto" is ordinary where `mean_direction` would be. Raises SiteError where the form cannot be told.
        """
        if form_used(self.stream, requested, self.site) == "whole" or self.stream is None or self.later is None:
            return self
        longer_documents = self.later.isfinite().all(dim=1)
        emptied = [
            tag for k, tag in enumerate(self.languages) if not bool((longer_documents & (self.language == k)).any())
        ]
        if emptied:
            raise MeasurementError(
                f"{', '.join(emptied)}: documents of one token only; expected longer ones; hand over longer text, or "
                "take form 'whole'"
            )
        return replace(
            self,
            value=without_units(self.later[longer_documents], self.stream.massive),
            language=self.language[longer_documents],
            ids=tuple(name for name, longer in zip(self.ids, longer_documents.tolist(), strict=True) if longer),
            later=None,
        )

    @property
    def left_out(self) -> tuple[int, ...]:
        """Massive units, which the ordinary form leaves out."""
        return () if self.stream is None else self.stream.massive

    def median_norm(self, languages: Sequence[str]) -> float | None:
        """Median length of some languages' ordinary tokens; None where it was not kept."""
        return None if self.stream is None else self.stream.median_length([self.index(tag) for tag in languages])

    def of(self, language: str) -> Float64[Tensor, "document unit"]:
        """Documents of one language."""
        return self.value[self.language == self.index(language)].double()

    def mean(self, language: str) -> Float64[Tensor, " unit"]:
        """Mean over a language's documents, each alike."""
        return self.of(language).mean(dim=0)

    def pairs(self, target: str, source: str) -> tuple[Float64[Tensor, "pair unit"], Float64[Tensor, "pair unit"]]:
        """Documents of both languages with the same id, in the target's order; raises CorpusError if there is none."""
        rows = [
            {self.ids[row]: row for row in (self.language == self.index(tag)).nonzero().flatten().tolist()}
            for tag in (target, source)
        ]
        shared = [name for name in rows[0] if name in rows[1]]
        if not shared:
            raise CorpusError(f"{target} and {source} share no document id; expected parallel text; hand over some")
        first, second = (self.value[[row[name] for name in shared]].double() for row in rows)
        return first, second

    def mean_norm(self, languages: Sequence[str]) -> float:
        """Mean of the languages' mean norms."""
        return float(self.norm[[self.index(tag) for tag in languages]].mean())


def document_means(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Texts,
    sites: Sequence[Site | str],
    *,
    max_length: int | None = None,
    batch_tokens: int | None = None,
) -> dict[Site, DocumentMeans]:
    """Read labelled text once and keep one mean per document at each site; memory is documents × units × sites.

    At stream sites a second one without the document's first token (see `DocumentMeans.in_form`).

    Raises CorpusError for a language without text, SiteError for sites without a space that all tokens share,
    MeasurementError where a site gives NaN or infinity.
    """
    layout, corpus = layout_of(model), as_corpus(texts)
    max_length = text_length(layout, max_length)
    parsed_sites = [site if isinstance(site, Site) else Site.parse(site) for site in sites]
    for site in parsed_sites:
        _check_space(layout, site)
    text = _counted_documents(tokenizer, corpus, max_length)
    means = [_Means(site, len(corpus)) for site in dict.fromkeys(parsed_sites)]
    stream_sites = [site for site in dict.fromkeys(parsed_sites) if site.at in STREAM_SITES]
    streams = {site: StreamTally(site, len(corpus), layout.width(site.at)) for site in stream_sites}
    walk(layout, text, [*means, *streams.values()], batch_tokens=batch_tokens)
    origin = origin_of(model, tokenizer)
    return {part.site: part.packed(origin, tuple(corpus), streams.get(part.site)) for part in means}


def document_codes(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Texts,
    sae: LoadedSAE,
    *,
    max_length: int | None = None,
    batch_tokens: int | None = None,
) -> DocumentMeans:
    """Read labelled text once and keep one mean per document of every feature of an autoencoder.

    Units are features, their values those of `LoadedSAE.encode`; `norm` is the mean length of a token's values.
    Raises CorpusError for a language without text, ArtifactError for an autoencoder of another width, SiteError where
    the model lacks its site, MeasurementError where the site gives NaN or infinity.
    """
    layout, corpus = layout_of(model), as_corpus(texts)
    max_length = text_length(layout, max_length)
    _check_space(layout, sae.site)
    width = layout.width(sae.site.at)
    if width != sae.d_hidden:
        raise ArtifactError(
            f"SAE {sae.id!r} reads {sae.d_hidden} values, the model has {width} at '{sae.site}'; take its own"
        )
    codes = _Means(sae.site, len(corpus), sae.to(layout.device_of(sae.site)))
    walk(layout, _counted_documents(tokenizer, corpus, max_length), [codes], batch_tokens=batch_tokens)
    return codes.packed(origin_of(model, tokenizer), tuple(corpus), None)


def _check_space(layout: Layout, site: Site) -> None:
    """Raise SiteError unless the model has the site, and all tokens share its units."""
    layout.check(site)
    if site.at == "logits" or (layout.n_experts and site.at in NEURON_SITES):
        raise SiteError(f"site '{site}': expected a space that all tokens share; use resid_out or mlp_out")


def _counted_documents(
    tokenizer: PreTrainedTokenizerBase, corpus: Corpus, max_length: int
) -> list[list[TokenDocument]]:
    """Each language's documents that have a token to count; raises CorpusError for a language without one."""
    text = []
    for k, (tag, documents) in enumerate(corpus.items()):
        text.append([d for d in tokenize_documents(tokenizer, documents, k, max_length=max_length) if d.n_counted])
        if not text[-1]:
            raise CorpusError(f"language {tag!r} has no token to read; expected longer text; add some")
    return text


class _BatchMeans(NamedTuple):
    """What one batch gives."""

    value: Float32[Tensor, "batch unit"]
    later: Float32[Tensor, "batch unit"]
    """Without first tokens; NaN for a document of one token."""
    norm: float
    """Sum over tokens of the length."""


class _Means:
    """Means of documents at one site, of its units or of an autoencoder's features."""

    def __init__(self, site: Site, languages: int, sae: LoadedSAE | None = None) -> None:
        self.site = site
        self.sae = sae
        self.hooks: dict[Site, ReadSite] = {site: self.read}
        self.rows: list[Tensor] = []
        self.later: list[Tensor] = []
        self.languages: list[int] = []
        self.ids: list[str] = []
        self.norm = torch.zeros(languages, dtype=torch.float64)
        self.tokens = torch.zeros(languages, dtype=torch.float64)

    def read(self, batch: Batch, site_value: SiteValue) -> _BatchMeans:
        """Means of a batch's documents."""
        value = site_value.value.flatten(2)
        value = value if self.sae is None else self.sae.encode(value)
        exact, count = value.double() * site_value.counted[..., None], site_value.counted.sum(dim=1, keepdim=True)
        total = exact.sum(dim=1)
        later_mean = ((total - exact[first_tokens(site_value.counted)]) / (count - 1)).masked_fill(count == 1, math.nan)
        return _BatchMeans((total / count).float().cpu(), later_mean.float().cpu(), float(exact.norm(dim=-1).sum()))

    def add(self, batch: Batch, values: dict[Site, _BatchMeans]) -> None:
        """Add a batch of one language."""
        means, k = values[self.site], batch.documents[0].language
        self.rows.append(means.value)
        if self.sae is None and self.site.at in STREAM_SITES:
            self.later.append(means.later)
        self.languages += [document.language for document in batch.documents]
        self.ids += [document.id for document in batch.documents]
        self.norm[k] += means.norm
        self.tokens[k] += int(batch.counted.sum())

    def packed(self, origin: Origin, languages: tuple[Language, ...], stream: StreamTally | None) -> DocumentMeans:
        """All means; raises MeasurementError where one is no number."""
        value = torch.cat(self.rows)
        if not bool(torch.isfinite(value).all()):
            raise MeasurementError(
                f"site '{self.site}' gave NaN or infinity; expected numbers; check the model's weights"
            )
        return DocumentMeans(
            site=self.site,
            origin=origin,
            languages=languages,
            value=value,
            language=torch.tensor(self.languages),
            ids=tuple(self.ids),
            norm=self.norm / self.tokens,
            later=None if stream is None else torch.cat(self.later),
            stream=None if stream is None else stream.layer(),
        )
