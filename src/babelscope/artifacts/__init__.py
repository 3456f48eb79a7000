"""Everything babelscope saves: folders of JSON and safetensors, never a pickle.

Here: one file per thing that is saved, with its checks; how a file is written is in `files`.
Imports: feature_map, files, interventions, languages, sites, upstream.
"""

from typing import TYPE_CHECKING

from babelscope.lazy_imports import lazy_names

if TYPE_CHECKING:
    from babelscope.artifacts.direction import Direction
    from babelscope.artifacts.gate import Condition, Gate, Schedule
    from babelscope.artifacts.identity import Origin
    from babelscope.artifacts.neuron_set import NeuronSet
    from babelscope.artifacts.observation import Observation
    from babelscope.artifacts.operation import Operation
    from babelscope.artifacts.recipe import SteeringRecipe
    from babelscope.artifacts.sae import LoadedSAE
    from babelscope.artifacts.site_record import SiteRecord
    from babelscope.artifacts.storage import hash_text
    from babelscope.feature_map import FeatureMap

__all__ = [
    "Condition",
    "Direction",
    "FeatureMap",
    "Gate",
    "LoadedSAE",
    "NeuronSet",
    "Observation",
    "Operation",
    "Origin",
    "Schedule",
    "SiteRecord",
    "SteeringRecipe",
    "hash_text",
]

__getattr__, __dir__ = lazy_names(__name__)
