"""Everything babelscope saves: folders of JSON and safetensors, never a pickle."""

from babelscope.artifacts.direction import Direction
from babelscope.artifacts.neuron_set import NeuronSet
from babelscope.artifacts.observation import Observation, SiteRecord
from babelscope.artifacts.recipe import Gate, Operation, Schedule, SteeringRecipe
from babelscope.artifacts.storage import Origin, hash_text

__all__ = [
    "Direction",
    "Gate",
    "NeuronSet",
    "Observation",
    "Operation",
    "Origin",
    "Schedule",
    "SiteRecord",
    "SteeringRecipe",
    "hash_text",
]
