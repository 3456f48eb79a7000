"""AdamW on selected rows, with float32 masters and low-precision weights written once."""

from babelscope_kernels.rows_adamw.dispatch import rows_adamw_
from babelscope_kernels.rows_adamw.targets import RowTargets

__all__ = ["RowTargets", "rows_adamw_"]
