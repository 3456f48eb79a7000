"""Means of an Observation, and the way from one language to another."""

from collections.abc import Sequence

import torch

from babelscope.artifacts import Direction, Observation
from babelscope.axes import Float64, Tensor
from babelscope.errors import LanguageError, MeasurementError, SiteError
from babelscope.languages import Language, parse_languages
from babelscope.sites import At, Site


def language_mean(obs: Observation, language: str, site: Site) -> Float64[Tensor, " unit"]:
    """Mean activation at a site over a language's tokens; an expert's neurons over the tokens routed to it.

    Raises SiteError if the site was not observed, MeasurementError if there is no token to average.
    """
    record, k = obs[site.at], obs.index(language)
    layer = site.layer or 0
    if layer not in record.layers:
        raise SiteError(f"site '{site}' was not observed; expected a layer of {record.layers}; observe it")
    row = record.layers.index(layer)
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


def against(obs: Observation, target: str, source: str | Sequence[str] | None) -> tuple[Language, ...]:
    """The languages to compare with, in order; None means all others."""
    tag = obs.languages[obs.index(target)]
    if source is None:
        others = tuple(other for other in obs.languages if other != tag)
    else:
        others = parse_languages([source] if isinstance(source, str) else source)
    if not others or tag in others:
        raise LanguageError(
            f"target {tag} came with source {', '.join(others) or 'none'}; expected at least one other language"
        )
    return others


def mean_difference(obs: Observation, target: str, source: Sequence[str], site: Site) -> Float64[Tensor, " unit"]:
    """Mean of the target minus the mean of the sources' means, each source alike."""
    others = torch.stack([language_mean(obs, tag, site) for tag in source])
    return language_mean(obs, target, site) - others.mean(dim=0)


def mean_direction(
    obs: Observation, *, target: str, source: str | Sequence[str] | None = None, layer: int, at: At = "resid_out"
) -> Direction:
    """The way from one language to another: v = mean(target) - mean(source) over tokens, at one layer.

    source: one tag, several, or None for all other observed languages; of several the mean of their means is taken,
    so that each counts alike. Differences are made in float64 and kept in float32. `mean_norm` is the mean norm over
    the tokens of target and source together.
    Raises LanguageError if target is among the sources, SiteError for a site that was not observed.
    Source: difference in means, Marks & Tegmark 2023, arXiv:2310.06824; for languages CLaS-Bench, arXiv:2601.08331,
    which adds the vector at unit length to every token of one layer.
    """
    site, others = Site(layer, at), against(obs, target, source)
    if obs[at].routed is not None:
        raise SiteError(f"site '{site}': a token meets only some experts there; expected a site that all tokens share")
    tag = obs.languages[obs.index(target)]
    languages = (tag, *others)
    return Direction(
        vector=mean_difference(obs, tag, others, site).float(),
        site=site,
        target=tag,
        source=others,
        mean_norm=obs.mean_norm(at, layer, languages),
        origin=obs.origin,
        parameters={
            "method": "difference of means",
            "source": "arXiv:2310.06824; for languages CLaS-Bench, arXiv:2601.08331",
            "tokens": {name: obs.tokens[name] for name in languages},
            "corpus": list(obs.parts),
        },
    )
