"""Everything babelscope saves: folders of JSON and safetensors, never a pickle."""

from babelscope.artifacts.neuron_set import NeuronSet
from babelscope.artifacts.observation import Observation, SiteRecord
from babelscope.artifacts.storage import Origin, hash_text

__all__ = ["NeuronSet", "Observation", "Origin", "SiteRecord", "hash_text"]
