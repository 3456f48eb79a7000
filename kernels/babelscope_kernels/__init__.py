"""Kernels on tensors: knows nothing of languages or models, and imports neither torch nor triton by itself."""

from babelscope_kernels.errors import KernelError

__all__ = ["KernelError"]
