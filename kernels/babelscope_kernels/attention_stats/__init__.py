"""Attention with gates on heads, and statistics of its pattern without the pattern."""

from babelscope_kernels.attention_stats.dispatch import attention_stats
from babelscope_kernels.attention_stats.statistics import AttentionStats

__all__ = ["AttentionStats", "attention_stats"]
