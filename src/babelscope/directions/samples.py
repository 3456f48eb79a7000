"""One streamed pass of labelled text: the mean activation of each document."""

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

import torch
from transformers import PreTrainedTokenizerBase

from babelscope.artifacts import Origin
from babelscope.artifacts.stream import (
    BINS,
    STREAM_SITES,
    Form,
    LayerStream,
    check_form,
    length_bins,
    ordinary_lengths,
    without_units,
)
from babelscope.axes import Float32, Float64, Int64, Tensor
from babelscope.corpus import Batch, Texts, as_corpus, batch_documents, tokenize_documents
from babelscope.errors import CorpusError, LanguageError, MeasurementError, SiteError
from babelscope.languages import Language
from babelscope.models import Layout, layout_of, origin_of
from babelscope.models.measuring import run_pass
from babelscope.models.plain import CausalModel
from babelscope.recording.sums import first_tokens
from babelscope.sites import NEURON_SITES, Site


@dataclass(frozen=True, eq=False)
class DocumentMeans:
    """Each document's mean at one site over its counted tokens (pads, BOS and other special tokens out)."""

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
    rest: Float32[Tensor, "document unit"] | None = None
    """Stream sites only: means without the first counted token; NaN for a document of one token."""
    stream: LayerStream | None = None
    """Stream sites only: what massive units and first tokens hold."""

    def index(self, language: str) -> int:
        """Place of a language; raises LanguageError if absent."""
        tag = Language.parse(language)
        if tag not in self.languages:
            raise LanguageError(f"language {tag!r} has no documents here; expected one of {', '.join(self.languages)}")
        return self.languages.index(tag)

    def in_form(self, wanted: Form) -> "DocumentMeans":
        """The same in a form: "ordinary" without first tokens, documents of one token left out, massive units zero.

        "auto" is ordinary where `mean_direction` would be. Raises SiteError where the form can not be told.
        """
        if check_form(self.stream, wanted, self.site) == "whole" or self.stream is None or self.rest is None:
            return self
        some = self.rest.isfinite().all(dim=1)
        gone = [tag for k, tag in enumerate(self.languages) if not bool((some & (self.language == k)).any())]
        if gone:
            raise MeasurementError(
                f"{', '.join(gone)}: documents of one token only; expected longer ones; hand over longer text, or take "
                "form 'whole'"
            )
        return replace(
            self,
            value=without_units(self.rest[some], self.stream.massive),
            language=self.language[some],
            ids=tuple(name for name, longer in zip(self.ids, some.tolist(), strict=True) if longer),
            rest=None,
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


@torch.no_grad()
def document_means(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Texts,
    sites: Sequence[Site | str],
    *,
    max_length: int = 512,
    batch_tokens: int = 4096,
) -> dict[Site, DocumentMeans]:
    """Read labelled text once and keep one mean a document at each site; memory is documents × units × sites.

    At stream sites a second one without the document's first token (see `DocumentMeans.in_form`).

    Raises CorpusError for a language without text, SiteError for sites without a space that all tokens share,
    MeasurementError where a site gives NaN or infinity.
    """
    layout, corpus = layout_of(model), as_corpus(texts)
    wanted = [site if isinstance(site, Site) else Site.parse(site) for site in sites]
    for site in wanted:
        layout.check(site)
        if site.at == "logits" or (layout.n_experts and site.at in NEURON_SITES):
            raise SiteError(f"site '{site}': expected a space that all tokens share; use resid_out or mlp_out")
    found = {site: _Means(len(corpus), layout.width(site.at), site.at in STREAM_SITES) for site in wanted}
    for k, documents in enumerate(corpus.values()):
        tokens = [d for d in tokenize_documents(tokenizer, documents, k, max_length=max_length) if d.n_counted]
        if not tokens:
            raise CorpusError(f"language {list(corpus)[k]!r} has no token to read; expected longer text; add some")
        for batch in batch_documents(tokens, batch_tokens=batch_tokens, pad=0):
            _read(layout, batch, found)
    origin = origin_of(model, tokenizer)
    return {site: means.packed(site, origin, tuple(corpus)) for site, means in found.items()}


def _read(layout: Layout, batch: Batch, found: Mapping[Site, "_Means"]) -> None:
    with ExitStack() as stack:
        for site, means in found.items():
            stack.enter_context(
                layout.watch(site, lambda value, sign, routes, means=means: means.add(value.flatten(2), batch))
            )
        run_pass(layout, batch.input_ids, batch.attention_mask)


class _Means:
    """What one site gave so far."""

    def __init__(self, languages: int, units: int, stream: bool) -> None:
        self.rows: list[Tensor] = []
        self.rest: list[Tensor] = []
        double = torch.zeros(4, languages, units, dtype=torch.float64)
        self.sums = tuple(double) if stream else ()
        """Of all tokens and their squares, of first tokens and theirs."""
        self.lengths = torch.zeros(languages, BINS, dtype=torch.int64)
        self.languages: list[int] = []
        self.ids: list[str] = []
        self.norm = torch.zeros(languages, dtype=torch.float64)
        self.tokens = torch.zeros(languages, dtype=torch.float64)

    def add(self, value: Tensor, batch: Batch) -> None:
        counted = batch.counted.to(value.device)
        k = batch.documents[0].language
        exact = value.double() * counted[..., None]
        self.rows.append((exact.sum(dim=1) / counted.sum(dim=1, keepdim=True)).float().cpu())
        self.languages += [document.language for document in batch.documents]
        self.ids += [document.id for document in batch.documents]
        self.norm[k] += float(exact.norm(dim=-1).sum())
        self.tokens[k] += int(counted.sum())
        if self.sums:
            self.add_stream(exact, counted, k)

    def add_stream(self, exact: Tensor, counted: Tensor, k: int) -> None:
        """First tokens by themselves, and the lengths of the others."""
        first = first_tokens(counted)
        rows, other = exact[first], exact[counted & ~first]
        rest = (exact.sum(dim=1) - rows) / (counted.sum(dim=1, keepdim=True) - 1)
        alone = counted.sum(dim=1, keepdim=True) == 1
        self.rest.append(rest.masked_fill(alone, math.nan).float().cpu())
        for total, part in zip(self.sums, (exact.flatten(0, 1), exact.flatten(0, 1) ** 2, rows, rows**2), strict=True):
            total[k] += part.sum(dim=0).cpu()
        self.lengths[k] += length_bins(ordinary_lengths(other**2)).cpu()

    def packed(self, site: Site, origin: Origin, languages: tuple[Language, ...]) -> DocumentMeans:
        value = torch.cat(self.rows)
        if not bool(torch.isfinite(value).all()):
            raise MeasurementError(f"site '{site}' gave NaN or infinity; expected numbers; check the model's weights")
        which = torch.tensor(self.languages)
        stream, rest = None, None
        if self.sums:
            firsts = torch.bincount(which, minlength=len(languages))
            total, square, first, first_square = self.sums
            stream = LayerStream(self.tokens.long(), firsts, total, square, first, first_square, self.lengths)
            rest = torch.cat(self.rest)
        norm = self.norm / self.tokens
        return DocumentMeans(site, origin, languages, value, which, tuple(self.ids), norm, rest, stream)
