"""Counts and sums of activations per language, over a batch of mixed languages."""

from babelscope_kernels.active_counts.dispatch import LanguageSums, active_counts, joint_sums, language_sums

__all__ = ["LanguageSums", "active_counts", "joint_sums", "language_sums"]
