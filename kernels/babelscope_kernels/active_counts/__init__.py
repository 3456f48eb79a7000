"""Counts and sums of activations per language, over a batch of mixed languages."""

from babelscope_kernels.active_counts.dispatch import (
    ColumnSums,
    active_counts,
    column_sums,
)

__all__ = ["ColumnSums", "active_counts", "column_sums"]
