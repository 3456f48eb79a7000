"""Length of each token's activation, whole and without the units that alone hold much of it."""

from babelscope_kernels.row_lengths.dispatch import RowLengths, row_lengths

__all__ = ["RowLengths", "row_lengths"]
