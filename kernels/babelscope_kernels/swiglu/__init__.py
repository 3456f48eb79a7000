"""Gated activation of an MLP: h = act(gate)·up, forward and backward in one pass each."""

from babelscope_kernels.swiglu.dispatch import SwigluGradient, swiglu, swiglu_backward

__all__ = ["SwigluGradient", "swiglu", "swiglu_backward"]
