"""Firing counts of a sparse autoencoder's features per language."""

from babelscope_kernels.sae_counts.dispatch import sae_counts
from babelscope_kernels.sae_counts.exact import sae_topk_counts
from babelscope_kernels.sae_counts.fired import SaeCounts

__all__ = ["SaeCounts", "sae_counts", "sae_topk_counts"]
