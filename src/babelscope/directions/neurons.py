"""Arithmetic on the neurons of languages."""

from collections.abc import Callable, Sequence
from typing import Literal

import torch

from babelscope.artifacts import Gate, NeuronSet, Observation, Operation, Schedule, SteeringRecipe
from babelscope.axes import Int64, Tensor
from babelscope.directions.means import against, language_mean, mean_difference
from babelscope.errors import SelectionError
from babelscope.sites import Site

_ALWAYS, _STEADY = Gate(), Schedule()

Activate = Literal["add", "replace", "difference"]


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

    Raises SelectionError if the language has no neuron. Source: arXiv:2507.22608, deactivation, whose code holds them
    at −1 unless told otherwise.
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
    """Multiply a language's neurons: a ← factor·a. Raises SelectionError if the language has no neuron.

    Source: arXiv:2507.22608, whose code multiplies by −0.1 as one of its ways to deactivate.
    """

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
    Source: arXiv:2507.22608, where λ is 1 and a replacement is whole.
    """
    sets.origin.check_same(obs.origin, "neuron arithmetic")
    others = against(obs, language, source) if by == "difference" else ()

    def build(site: Site, neurons: Tensor) -> Operation:
        mean = mean_difference(obs, language, others, site) if others else language_mean(obs, language, site)
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
    Raises SelectionError if a language has no neuron. Source: arXiv:2507.22608, at the activation function's output
    and in this order; `fill` differs, as in `set_neurons`.
    """
    off = [] if source is None else set_neurons(sets, source, fill, gate=gate, schedule=schedule)
    on = activate_neurons(
        sets, obs, target, by, source=source, strength=strength, gate=gate, schedule=schedule
    )  # fmt: skip
    return [*off, *on]


def arithmetic_recipe(
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
) -> SteeringRecipe:
    """`language_arithmetic` as a recipe, whose card names the method and its source."""
    operations = language_arithmetic(
        sets, obs, target=target, source=source, by=by, strength=strength, fill=fill, gate=gate, schedule=schedule
    )
    made = {
        "method": f"neuron arithmetic, {by}",
        "source": "arXiv:2507.22608",
        "target": sets.languages[sets.index(target)],
        "from": [] if source is None else [sets.languages[sets.index(source)]],
        "neurons": sets.method,
        "fill": float(fill),
    }
    return SteeringRecipe(tuple(operations), sets.origin, made)


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
