"""Interventions during generation, on an unmodified Hugging Face model."""

from babelscope.steering.checking import check_operations
from babelscope.steering.engine import Steering, steer

__all__ = ["Steering", "check_operations", "steer"]
