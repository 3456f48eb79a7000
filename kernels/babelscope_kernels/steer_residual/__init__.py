"""Edits of the residual stream: add a direction or project it out, each in one pass."""

from babelscope_kernels.steer_residual.dispatch import steer_residual

__all__ = ["steer_residual"]
