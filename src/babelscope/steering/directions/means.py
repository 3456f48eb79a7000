"""Means of an Observation, and the way from one language to another."""

from collections.abc import Sequence
from typing import Any, Literal, Protocol, runtime_checkable

import torch

from babelscope.artifacts import Direction, Observation
from babelscope.artifacts.stream import LayerStream, form_used
from babelscope.artifacts.stream_forms import StreamForm
from babelscope.axes import Float64, Tensor
from babelscope.errors import LanguageError, MeasurementError, SiteError, refuse_one_text
from babelscope.languages import Language, parse_languages
from babelscope.sites import At, Site


def form_at(obs: Observation, site: Site, requested: StreamForm) -> Literal["whole", "ordinary"]:
    """The form of directions at a site; "auto" is ordinary where massive units or first tokens would dominate them."""
    return form_used(obs.stream(site.at, site.layer or 0), requested, site)


def language_mean(
    obs: Observation, language: str, site: Site, form: Literal["whole", "ordinary"] = "whole"
) -> Float64[Tensor, " unit"]:
    """Mean activation at a site over a language's tokens; an expert's neurons over the tokens routed to it.

    form: "ordinary" leaves out the first token of every document, and is zero at massive units.
    Raises SiteError if the site was not observed, MeasurementError if there is no token to average.
    """
    record, k = obs[site.at], obs.index(language)
    layer = site.layer or 0
    row = obs.row(site.at, layer)
    stream = obs.stream(site.at, layer)
    if form_used(stream, form, site) == "ordinary" and stream is not None:
        return stream.mean(k)
    total = record.sum[row, :, k].double()
    if record.routed is None:
        counts = obs.token_counts[k].double().expand_as(total)
    else:
        routed = record.routed[row, :, k].double()
        counts = routed.repeat_interleave(len(total) // len(routed))
    if not bool(counts.all()):
        where = "no token" if record.routed is None else "an expert without any token"
        raise MeasurementError(f"'{site}' in {language}: {where}; expected at least one; observe more text")
    return total / counts


@runtime_checkable
class LanguageAxis(Protocol):
    """What was measured by language: an Observation, or means of documents."""

    @property
    def languages(self) -> tuple[Language, ...]:
        """Order of the language axis."""
        ...

    def index(self, language: str) -> int:
        """Place of a language; raises LanguageError if absent."""
        ...


def compared_languages(measured: LanguageAxis, target: str, source: str | Sequence[str] | None) -> tuple[Language, ...]:
    """The languages to compare a target with, in order; None means all others.

    Raises LanguageError where the target is not there, is its own source, or has no other language beside it.
    """
    tag = measured.languages[measured.index(target)]
    if source is None:
        sources = tuple(candidate for candidate in measured.languages if candidate != tag)
    else:
        sources = parse_languages([source] if isinstance(source, str) else source)
    if not sources or tag in sources:
        raise LanguageError(
            f"target {tag} came with source {', '.join(sources) or 'none'}; expected at least one other language"
        )
    return sources


def mean_difference(
    obs: Observation,
    target: str,
    source: Sequence[str],
    site: Site,
    form: Literal["whole", "ordinary"] = "whole",
) -> Float64[Tensor, " unit"]:
    """Mean of the target minus the mean of the sources' means, each source alike."""
    refuse_one_text(source, "source", LanguageError)
    source_means = torch.stack([language_mean(obs, tag, site, form) for tag in source])
    return language_mean(obs, target, site, form) - source_means.mean(dim=0)


def stream_parameters(stream: LayerStream | None) -> dict[str, Any]:
    """Shares of massive units and first tokens in the stream that a direction was made in, saved with it."""
    return {} if stream is None or not stream.ordinary_tokens else {"stream": stream.shares._asdict()}


def mean_direction(
    obs: Observation,
    *,
    target: str,
    source: str | Sequence[str] | None = None,
    layer: int,
    at: At = "resid_out",
    form: StreamForm = "auto",
) -> Direction:
    """The way from one language to another: v = mean(target) - mean(source) over tokens, at one layer.

    source: one tag, several, or None for all other observed languages; of several the mean of their means is taken,
    so that each counts alike. Differences are made in float64 and kept in float32. `mean_norm` and `median_norm` are
    over the tokens of target and source together.
    form: "whole" of all tokens and units; "ordinary" without the first token of every document, and zero at massive
    units; "auto" is the latter where at this layer one unit holds more than .3 of ordinary tokens' squared length
    (mean over all observed languages), or first tokens are in some language four times as large as the others.
    Raises LanguageError if target is among the sources, SiteError for a site that was not observed or, asked for the
    ordinary form, one where first tokens were not kept.
    Source: difference in means, Marks & Tegmark 2023, arXiv:2310.06824; for languages CLaS-Bench, arXiv:2601.08331,
    which adds the vector at unit length to every token of one layer.
    """
    site, sources = Site(layer, at), compared_languages(obs, target, source)
    if obs[at].routed is not None:
        raise SiteError(f"site '{site}': a token meets only some experts there; expected a site that all tokens share")
    tag = obs.languages[obs.index(target)]
    languages = (tag, *sources)
    stream = obs.stream(at, layer)
    shape = form_used(stream, form, site)
    places = [obs.index(name) for name in languages]
    return Direction(
        vector=mean_difference(obs, tag, sources, site, shape).float(),
        site=site,
        target=tag,
        source=sources,
        mean_norm=obs.mean_norm(at, layer, languages),
        origin=obs.origin,
        parameters={
            "method": "difference of means",
            "source": "arXiv:2310.06824; for languages CLaS-Bench, arXiv:2601.08331",
            "tokens": {name: obs.tokens[name] for name in languages},
            "corpus": list(obs.parts),
            **stream_parameters(stream),
        },
        form=shape,
        median_norm=None if stream is None else stream.median_length(places),
        left_out=stream.massive if stream is not None and shape == "ordinary" else (),
    )
