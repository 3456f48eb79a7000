"""Edits of the residual stream: add a direction, project it out, or a low-rank edit, each in one pass."""

from babelscope_kernels.steer_residual.dispatch import steer_low_rank, steer_residual

__all__ = ["steer_low_rank", "steer_residual"]
