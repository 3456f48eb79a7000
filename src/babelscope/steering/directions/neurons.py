"""Arithmetic on the neurons of languages."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch

from babelscope.artifacts import NeuronSet, Observation, Operation, SteeringRecipe
from babelscope.axes import Int64, Tensor
from babelscope.errors import SelectionError
from babelscope.languages import Language, parse_languages
from babelscope.sites import Site
from babelscope.steering.directions.means import compared_languages, language_mean, mean_difference

Activate = Literal["add", "replace", "difference"]
Deactivate = Literal["zero", "negative", "mean", "random", "shrink", "noise", "invert"]
"""Ways to switch neurons off; "shrink" is called mask in the published script."""
LITTLE, MUCH = 0.1, 5.0
"""Standard deviation of what "random" sets neurons to, and of what "noise" adds to them."""
NeuronOperation = Literal["add", "replace", "scale", "to_mean"]


def set_neurons(
    sets: NeuronSet, language: str | Sequence[str], value: float | int = 0.0, *, strength: float | int = 1.0
) -> SteeringRecipe:
    """Hold a language's neurons, or those of several, at a value: a ← value; at 0 they are deactivated.

    Raises SelectionError if no neuron is theirs. Source: arXiv:2507.22608, deactivation, whose code holds them
    at −1 unless told otherwise.
    """
    parameters = {"method": "neurons held at a value", "value": float(value)}
    return _by_layer(sets, language, "replace", _all_at(value), strength, parameters)


def scale_neurons(
    sets: NeuronSet, language: str | Sequence[str], factor: float | int, *, strength: float | int = 1.0
) -> SteeringRecipe:
    """Multiply a language's neurons, or those of several: a ← factor·a. Raises SelectionError if no neuron is theirs.

    Source: arXiv:2507.22608, whose code multiplies by −0.1 as one of its ways to deactivate.
    """
    parameters = {"method": "neurons scaled", "factor": float(factor)}
    return _by_layer(sets, language, "scale", _all_at(factor), strength, parameters)


def deactivate_neurons(
    sets: NeuronSet, language: str | Sequence[str], by: Deactivate | str = "zero", *, seed: int = 0
) -> SteeringRecipe:
    """Switch a language's neurons off, or those of several languages, in one of seven ways.

    by: "zero" (a ← 0), "negative" (a ← −1), "mean" (a ← the mean of all neurons of the layer on the token), "random"
    (a ← r with r ~ N(0, 0.1²)), "shrink" (a ← −0.1·a), "noise" (a ← a + r with r ~ N(0, 5²)), "invert" (a ← −a).
    Different from the published script: r is drawn once for each neuron, with `seed`, and not anew at every token, so
    that an answer can be repeated; and a recipe is applied to prompt and answer alike, as there.
    Raises SelectionError if no neuron is theirs, or for another word. Source: arXiv:2507.22608, fallback languages.
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(spread: float) -> Callable[[Site, Int64[Tensor, " chosen"]], Tensor]:
        return lambda site, neurons: spread * torch.randn(len(neurons), generator=generator)

    ways: Mapping[str, tuple[NeuronOperation, Callable[[Site, Int64[Tensor, " chosen"]], Tensor]]] = {
        "zero": ("replace", _all_at(0.0)),
        "negative": ("replace", _all_at(-1.0)),
        "mean": ("to_mean", _all_at(1.0)),
        "random": ("replace", draw(LITTLE)),
        "shrink": ("scale", _all_at(-0.1)),
        "noise": ("add", draw(MUCH)),
        "invert": ("scale", _all_at(-1.0)),
    }
    if by not in ways:
        raise SelectionError(f"deactivation {by!r} came; expected one of {', '.join(ways)}; choose one")
    kind, values = ways[by]
    return _by_layer(sets, language, kind, values, 1.0, {"method": f"neurons deactivated, {by}", "seed": seed})


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
    sources = compared_languages(obs, language, source) if by == "difference" else ()

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
    source: str | Sequence[str] | None = None,
    by: Activate = "add",
    strength: float | int = 1.0,
    fill: float | int = 0.0,
) -> SteeringRecipe:
    """Switch the neurons of one language or several off, then another's on, in every layer that has some.

    First the neurons of the `source` languages together are set to `fill` (skipped if None), then those of `target`
    pushed as by `activate_neurons`, with `strength`. A neuron of both ends at fill + λ·μ with by="add".
    Raises SelectionError if a language has no neuron, LanguageError for an empty list of sources and for a language
    that comes twice. Source: arXiv:2507.22608, at the activation function's output and in this order; `fill` differs,
    as in `set_neurons`.
    """
    sources = () if source is None else _languages_of(sets, source)
    for tag in sources:
        set_neurons(sets, tag, fill)  # Each must have a neuron, or the recipe would not do what it says.
    off = set_neurons(sets, sources, fill).operations if sources else ()
    on = activate_neurons(sets, obs, target, by, source=sources or None, strength=strength).operations
    parameters = {
        "method": f"neuron arithmetic, {by}",
        "source": "arXiv:2507.22608",
        "target": sets.languages[sets.index(target)],
        "from": list(sources),
        "neurons": sets.method,
        "fill": float(fill),
    }
    return SteeringRecipe((*off, *on), sets.origin, parameters)


def _all_at(value: float | int) -> Callable[[Site, Int64[Tensor, " chosen"]], Tensor]:
    """One value for every neuron."""
    return lambda site, neurons: torch.full(neurons.shape, float(value))


def _languages_of(sets: NeuronSet, language: str | Sequence[str]) -> tuple[Language, ...]:
    """The languages that were asked for; raises LanguageError for none, and for one that comes twice or has no set."""
    return tuple(
        sets.languages[sets.index(tag)]
        for tag in parse_languages([language] if isinstance(language, str) else language)
    )


def _by_layer(
    sets: NeuronSet,
    language: str | Sequence[str],
    kind: NeuronOperation,
    values: Callable[[Site, Int64[Tensor, " chosen"]], Tensor],
    strength: float | int,
    parameters: Mapping[str, Any],
) -> SteeringRecipe:
    """One operation for each layer in which the languages have neurons; a neuron of several is taken once."""
    tags, operations = _languages_of(sets, language), []
    for layer in range(sets.n_layers):
        neurons = torch.cat([sets.layer_of(sets.index(tag), layer) for tag in tags]).long().unique()
        if len(neurons):
            site = Site(layer, "mlp_inner" if sets.at == "mlp_inner" else "mlp_gate")
            operations.append(
                Operation(site, kind, values(site, neurons), strength, indices=neurons, origin=sets.origin)
            )
    if not operations:
        raise SelectionError(
            f"no neuron is selected for {', '.join(tags)}; expected at least one; select with a higher rate"
        )
    label = tags[0] if isinstance(language, str) else list(tags)
    provenance = {"source": "arXiv:2507.22608", "neurons": sets.method, "language": label}
    return SteeringRecipe(tuple(operations), sets.origin, {**parameters, **provenance})
