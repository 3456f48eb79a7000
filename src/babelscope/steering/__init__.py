"""Interventions during generation, on an unmodified Hugging Face model."""

from babelscope.steering.engine import Steering, check_operations, steer

__all__ = ["Steering", "check_operations", "steer"]
