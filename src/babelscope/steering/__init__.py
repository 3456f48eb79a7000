"""Interventions during generation, on an unmodified Hugging Face model."""

from babelscope.steering.arithmetic import (
    add_difference,
    add_mean,
    language_arithmetic,
    replace_by_mean,
    scale_neurons,
    set_neurons,
)
from babelscope.steering.engine import Steering, check_operations, steer

__all__ = [
    "Steering",
    "add_difference",
    "add_mean",
    "check_operations",
    "language_arithmetic",
    "replace_by_mean",
    "scale_neurons",
    "set_neurons",
    "steer",
]
