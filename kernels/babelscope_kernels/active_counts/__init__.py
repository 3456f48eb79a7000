"""Counts and sums of activations per language, over a batch of mixed languages."""

from babelscope_kernels.active_counts.dispatch import (
    ColumnSums,
    LanguageSums,
    active_counts,
    column_sums,
    language_sums,
)

__all__ = ["ColumnSums", "LanguageSums", "active_counts", "column_sums", "language_sums"]
