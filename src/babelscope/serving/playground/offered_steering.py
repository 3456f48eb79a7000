"""What can be chosen on the page, made from saved artifacts: ways of steering, and neurons that can be switched off."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from babelscope.artifacts import Direction, NeuronSet, Observation, SteeringRecipe
from babelscope.errors import ArtifactError
from babelscope.languages import Language
from babelscope.steering.directions import activate_neurons, mean_direction, set_neurons
from babelscope.steering.sweeps import meant_language
from babelscope.subnetworks import Delta

Artifact = Direction | SteeringRecipe | Delta | NeuronSet | Observation
LoadedSteering = SteeringRecipe | Delta
NO_STEERING = "no steering"


@dataclass(frozen=True, kw_only=True)
class SteeringChoice:
    """One way of steering that the page offers."""

    build: Callable[[Language | None, float, int], LoadedSteering]
    """Target, strength and layer → what steers."""
    target: Language | None = None
    """The language that it was made for; None where that is open or not said."""
    targets: tuple[Language, ...] = ()
    """The languages that it can be made for; empty where it was made before."""
    layers: tuple[int, ...] = ()
    """The layers it can act at; empty where it was made before."""


def steering_choices(artifacts: Mapping[str, Artifact]) -> dict[str, SteeringChoice]:
    """Every way of steering that these artifacts give, by its name on the page.

    A Direction, SteeringRecipe or Delta is one way. An Observation with resid_out gives the mean direction into any of
    its languages, and with a NeuronSet of the same model the activation of a language's neurons.
    Raises ArtifactError where nothing can be done with what came.
    """
    choices: dict[str, SteeringChoice] = {}
    sets = {name: artifact for name, artifact in artifacts.items() if isinstance(artifact, NeuronSet)}
    for name, artifact in artifacts.items():
        if isinstance(artifact, Observation):
            if "resid_out" in artifact.records:
                choices[f"mean direction from {name}"] = SteeringChoice(
                    build=_mean_direction(artifact),
                    targets=artifact.languages,
                    layers=artifact["resid_out"].layers,
                )
            for set_name, neurons in sets.items():
                if neurons.at in artifact.records:
                    choices[f"neurons of {set_name} activated, means of {name}"] = SteeringChoice(
                        build=_activation(neurons, artifact),
                        targets=tuple(
                            tag for tag in neurons.languages if neurons.sizes[tag] and tag in artifact.languages
                        ),
                    )
        elif not isinstance(artifact, NeuronSet):
            choices[name] = SteeringChoice(build=_scaled(artifact), target=meant_language(artifact))
    if not choices and not sets:
        raise ArtifactError(
            f"{', '.join(artifacts) or 'nothing'}: nothing in it steers; expected a Direction, SteeringRecipe, Delta, "
            "NeuronSet, or an Observation with resid_out; observe with --sites resid_out, or name another folder"
        )
    return choices


def neuron_switches(artifacts: Mapping[str, Artifact]) -> dict[str, SteeringRecipe]:
    """What holds the neurons of a language at zero, by its name on the page; a language without neurons has none."""
    sets = {name: artifact for name, artifact in artifacts.items() if isinstance(artifact, NeuronSet)}
    return {
        f"{tag.english_name} ({tag}), {size} neurons{f' of {name}' if len(sets) > 1 else ''}": set_neurons(neurons, tag)
        for name, neurons in sets.items()
        for tag, size in neurons.sizes.items()
        if size
    }


def _scaled(artifact: Direction | SteeringRecipe | Delta) -> Callable[[Language | None, float, int], LoadedSteering]:
    """An artifact at a multiple of what it is: 0 is nothing, 1 is as it was saved."""

    def build(target: Language | None, strength: float, layer: int) -> LoadedSteering:
        if isinstance(artifact, Delta):
            return artifact * strength
        if isinstance(artifact, Direction):
            return artifact.recipe(strength, "raw")
        operations = tuple(replace(operation, strength=operation.strength * strength) for operation in artifact)
        return replace(artifact, operations=operations)

    return build


def _mean_direction(observed: Observation) -> Callable[[Language | None, float, int], LoadedSteering]:
    def build(target: Language | None, strength: float, layer: int) -> LoadedSteering:
        return mean_direction(observed, target=str(target), layer=layer).recipe(strength, "raw")

    return build


def _activation(neurons: NeuronSet, observed: Observation) -> Callable[[Language | None, float, int], LoadedSteering]:
    def build(target: Language | None, strength: float, layer: int) -> LoadedSteering:
        return activate_neurons(neurons, observed, str(target), strength=strength)

    return build
