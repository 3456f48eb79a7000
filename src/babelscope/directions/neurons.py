"""Arithmetic on the neurons of languages."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch

from babelscope.artifacts import NeuronSet, Observation, Operation, SteeringRecipe
from babelscope.axes import Int64, Tensor
from babelscope.directions.means import against, language_mean, mean_difference
from babelscope.errors import SelectionError
from babelscope.sites import Site

Activate = Literal["add", "replace", "difference"]


def set_neurons(
    sets: NeuronSet, language: str, value: float | int = 0.0, *, strength: float | int = 1.0
) -> SteeringRecipe:
    """Hold a language's neurons at a value: a ← value; at 0 they are deactivated.

    Raises SelectionError if the language has no neuron. Source: arXiv:2507.22608, deactivation, whose code holds them
    at −1 unless told otherwise.
    """

    def values(site: Site, neurons: Tensor) -> Tensor:
        return torch.full(neurons.shape, float(value))

    parameters = {"method": "neurons held at a value", "value": float(value)}
    return _by_layer(sets, language, "replace", values, strength, parameters)


def scale_neurons(
    sets: NeuronSet, language: str, factor: float | int, *, strength: float | int = 1.0
) -> SteeringRecipe:
    """Multiply a language's neurons: a ← factor·a. Raises SelectionError if the language has no neuron.

    Source: arXiv:2507.22608, whose code multiplies by −0.1 as one of its ways to deactivate.
    """

    def factors(site: Site, neurons: Tensor) -> Tensor:
        return torch.full(neurons.shape, float(factor))

    parameters = {"method": "neurons scaled", "factor": float(factor)}
    return _by_layer(sets, language, "scale", factors, strength, parameters)


def activate_neurons(
    sets: NeuronSet,
    obs: Observation,
    language: str,
    by: Activate = "add",
    *,
    source: str | Sequence[str] | None = None,
    strength: float | int = 1.0,
) -> SteeringRecipe:
    """Push a language's neurons by the mean μ of their activation on its own text; λ is `strength`.

    by: "add" (a ← a + λ·μ), "replace" (a ← a + λ·(μ - a), μ itself at λ = 1), "difference" (a ← a + λ·(μ - mean of
    the sources' means)); `source` is read by "difference" only, None meaning all other observed languages.
    Raises SelectionError if the language has no neuron, ArtifactError if set and observation are of different models.
    Source: arXiv:2507.22608, where λ is 1 and a replacement is whole.
    """
    sets.origin.check_same(obs.origin, "neuron arithmetic")
    sources = against(obs, language, source) if by == "difference" else ()

    def means(site: Site, neurons: Tensor) -> Tensor:
        mean = mean_difference(obs, language, sources, site) if sources else language_mean(obs, language, site)
        return mean[neurons].float()

    parameters = {"method": f"neurons activated, {by}", "target": sets.languages[sets.index(language)]}
    return _by_layer(sets, language, "replace" if by == "replace" else "add", means, strength, parameters)


def language_arithmetic(
    sets: NeuronSet,
    obs: Observation,
    *,
    target: str,
    source: str | None = None,
    by: Activate = "add",
    strength: float | int = 1.0,
    fill: float | int = 0.0,
) -> SteeringRecipe:
    """Switch one language's neurons off, then another's on, in every layer that has some.

    First the neurons of `source` are set to `fill` (skipped if None), then those of `target` pushed as by
    `activate_neurons`, with `strength`. A neuron of both ends at fill + λ·μ with by="add".
    Raises SelectionError if a language has no neuron. Source: arXiv:2507.22608, at the activation function's output
    and in this order; `fill` differs, as in `set_neurons`.
    """
    off = () if source is None else set_neurons(sets, source, fill).operations
    on = activate_neurons(sets, obs, target, by, source=source, strength=strength).operations
    parameters = {
        "method": f"neuron arithmetic, {by}",
        "source": "arXiv:2507.22608",
        "target": sets.languages[sets.index(target)],
        "from": [] if source is None else [sets.languages[sets.index(source)]],
        "neurons": sets.method,
        "fill": float(fill),
    }
    return SteeringRecipe((*off, *on), sets.origin, parameters)


def _by_layer(
    sets: NeuronSet,
    language: str,
    kind: Literal["add", "replace", "scale"],
    values: Callable[[Site, Int64[Tensor, " chosen"]], Tensor],
    strength: float | int,
    parameters: Mapping[str, Any],
) -> SteeringRecipe:
    """One operation for each layer in which the language has neurons."""
    k, operations = sets.index(language), []
    for layer in range(sets.n_layers):
        neurons = sets.layer_of(k, layer).long()
        if len(neurons):
            site = Site(layer, "mlp_inner" if sets.at == "mlp_inner" else "mlp_gate")
            operations.append(
                Operation(site, kind, values(site, neurons), strength, indices=neurons, origin=sets.origin)
            )
    if not operations:
        raise SelectionError(f"no neuron is selected for {language}; expected at least one; select with a higher rate")
    provenance = {"source": "arXiv:2507.22608", "neurons": sets.method, "language": sets.languages[k]}
    return SteeringRecipe(tuple(operations), sets.origin, {**parameters, **provenance})
