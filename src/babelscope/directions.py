"""From the means of an Observation to what steers: directions between languages, and arithmetic on neurons."""

from collections.abc import Callable, Sequence
from typing import Literal

import torch

from babelscope.artifacts import Direction, Gate, NeuronSet, Observation, Operation, Schedule
from babelscope.axes import Float64, Int64, Tensor
from babelscope.errors import LanguageError, MeasurementError, SelectionError, SiteError
from babelscope.languages import Language, parse_languages
from babelscope.sites import At, Site

_ALWAYS, _STEADY = Gate(), Schedule()

Activate = Literal["add", "replace", "difference"]


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


def _against(obs: Observation, target: str, source: str | Sequence[str] | None) -> tuple[Language, ...]:
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


def _mean_difference(obs: Observation, target: str, source: Sequence[str], site: Site) -> Float64[Tensor, " unit"]:
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
    site, others = Site(layer, at), _against(obs, target, source)
    if obs[at].routed is not None:
        raise SiteError(f"site '{site}': a token meets only some experts there; expected a site that all tokens share")
    tag = obs.languages[obs.index(target)]
    languages = (tag, *others)
    return Direction(
        vector=_mean_difference(obs, tag, others, site).float(),
        site=site,
        target=tag,
        source=others,
        mean_norm=obs.mean_norm(at, layer, languages),
        origin=obs.origin,
        parameters={
            "method": "difference of means",
            "tokens": {name: obs.tokens[name] for name in languages},
            "corpus": list(obs.parts),
        },
    )


def _by_layer(
    sets: NeuronSet, language: str, build: Callable[[Site, Int64[Tensor, " chosen"]], Operation]
) -> list[Operation]:
    """One operation for each layer in which the language has neurons."""
    k, operations = sets.index(language), []
    for layer in range(sets.n_layers):
        neurons = sets.layer_of(k, layer).long()
        if len(neurons):
            operations.append(build(Site(layer, "mlp_inner" if sets.at == "mlp_inner" else "mlp_gate"), neurons))
    if not operations:
        raise SelectionError(f"no neuron is selected for {language}; expected at least one; select with a higher rate")
    return operations


def set_neurons(
    sets: NeuronSet,
    language: str,
    value: float | int = 0.0,
    *,
    strength: float | int = 1.0,
    gate: Gate = _ALWAYS,
    schedule: Schedule = _STEADY,
) -> list[Operation]:
    """Hold a language's neurons at a value: a ← value; at 0 they are deactivated.

    Raises SelectionError if the language has no neuron. Source: arXiv:2507.22608, deactivation.
    """

    def build(site: Site, neurons: Tensor) -> Operation:
        vector = torch.full(neurons.shape, float(value))
        return _on(sets, site, neurons, "replace", vector, strength, gate, schedule)

    return _by_layer(sets, language, build)


def scale_neurons(
    sets: NeuronSet,
    language: str,
    factor: float | int,
    *,
    strength: float | int = 1.0,
    gate: Gate = _ALWAYS,
    schedule: Schedule = _STEADY,
) -> list[Operation]:
    """Multiply a language's neurons: a ← factor·a. Raises SelectionError if the language has no neuron."""

    def build(site: Site, neurons: Tensor) -> Operation:
        vector = torch.full(neurons.shape, float(factor))
        return _on(sets, site, neurons, "scale", vector, strength, gate, schedule)

    return _by_layer(sets, language, build)


def activate_neurons(
    sets: NeuronSet,
    obs: Observation,
    language: str,
    by: Activate = "add",
    *,
    source: str | Sequence[str] | None = None,
    strength: float | int = 1.0,
    gate: Gate = _ALWAYS,
    schedule: Schedule = _STEADY,
) -> list[Operation]:
    """Push a language's neurons by the mean μ of their activation on its own text; λ is `strength`.

    by: "add" (a ← a + λ·μ), "replace" (a ← a + λ·(μ - a), μ itself at λ = 1), "difference" (a ← a + λ·(μ - mean of
    the sources' means)); `source` is read by "difference" only, None meaning all other observed languages.
    Raises SelectionError if the language has no neuron, ArtifactError if set and observation are of different models.
    Source: arXiv:2507.22608.
    """
    sets.origin.check_same(obs.origin, "neuron arithmetic")
    others = _against(obs, language, source) if by == "difference" else ()

    def build(site: Site, neurons: Tensor) -> Operation:
        mean = _mean_difference(obs, language, others, site) if others else language_mean(obs, language, site)
        kind = "replace" if by == "replace" else "add"
        return _on(sets, site, neurons, kind, mean[neurons].float(), strength, gate, schedule)

    return _by_layer(sets, language, build)


def language_arithmetic(
    sets: NeuronSet,
    obs: Observation,
    *,
    target: str,
    source: str | None = None,
    by: Activate = "add",
    strength: float | int = 1.0,
    fill: float | int = 0.0,
    gate: Gate = _ALWAYS,
    schedule: Schedule = _STEADY,
) -> list[Operation]:
    """Switch one language's neurons off, then another's on, in every layer that has some.

    First the neurons of `source` are set to `fill` (skipped if None), then those of `target` pushed as by
    `activate_neurons`. A neuron of both ends at fill + λ·μ with by="add".
    Raises SelectionError if a language has no neuron. Source: arXiv:2507.22608, at the activation function's output.
    """
    off = [] if source is None else set_neurons(sets, source, fill, gate=gate, schedule=schedule)
    on = activate_neurons(
        sets, obs, target, by, source=source, strength=strength, gate=gate, schedule=schedule
    )  # fmt: skip
    return [*off, *on]


def _on(
    sets: NeuronSet,
    site: Site,
    neurons: Tensor,
    kind: Literal["add", "replace", "scale"],
    vector: Tensor,
    strength: float | int,
    gate: Gate,
    schedule: Schedule,
) -> Operation:
    return Operation(
        site,
        kind,
        vector,
        strength=strength,
        indices=neurons,
        gate=gate,
        schedule=schedule,
        origin=sets.origin,
    )
