"""Weight gradient of selected rows only."""

from babelscope_kernels.rows_wgrad.dispatch import rows_wgrad

__all__ = ["rows_wgrad"]
