"""Lengths of rows, by the backend that the rule of `backend.py` gives."""

from typing import NamedTuple

import torch
from torch import Tensor

from babelscope_kernels.backend import Backend, choose
from babelscope_kernels.errors import KernelError
from babelscope_kernels.launching import operator
from babelscope_kernels.row_lengths.reference import row_lengths_reference

MOST_UNITS = 16384
"""Of a row that Triton holds in registers."""


class RowLengths(NamedTuple):
    """Lengths of each row of the activation, float32 (float64 for float64) [row]."""

    whole: Tensor
    """√Σ x²."""
    ordinary: Tensor
    """The same without the units that alone hold more than a share of it."""


def _fake_lengths(value: Tensor, bar: float, rounds: int) -> tuple[Tensor, Tensor]:
    n_row = value.numel() // max(value.shape[-1], 1)
    return value.new_empty(n_row, dtype=torch.float32), value.new_empty(n_row, dtype=torch.float32)


@operator("babelscope_kernels::row_lengths", _fake_lengths)
def _triton(value: Tensor, bar: float, rounds: int) -> tuple[Tensor, Tensor]:
    from babelscope_kernels.row_lengths.kernel import launch_lengths

    return launch_lengths(value, bar, rounds)


def row_lengths(value: Tensor, *, bar: float = 1.0, rounds: int = 0, backend: Backend = "auto") -> RowLengths:
    """Lengths of the rows of value [..., unit], whole and ordinary; one read of the activation where Triton runs.

    bar, rounds: a unit with x² > bar · Σ x² is left out of the ordinary length, then of what is left again, so many
    times over. In float32, or float64 where `value` is. No gradient flows.
    Raises KernelError for a value that does not float or has no axis, and for a bar that is not above 0.
    """
    if value.ndim < 1 or not value.is_floating_point() or not value.shape[-1]:
        raise KernelError(f"row_lengths: value {value.dtype} {tuple(value.shape)}; give floating values [..., unit]")
    if not bar > 0 or rounds < 0:
        raise KernelError(f"row_lengths: bar {bar}, rounds {rounds}; give a bar above 0, and 0 or more rounds")
    n_unit = value.shape[-1]
    objection = f"{n_unit} units, at most {MOST_UNITS}" if n_unit > MOST_UNITS else ""
    value = value.detach()
    if choose("row_lengths", backend, [value], objection=objection) == "triton":
        return RowLengths(*_triton(value, float(bar), rounds))
    wide = value.to(torch.float64 if value.dtype == torch.float64 else torch.float32)
    return RowLengths(*row_lengths_reference(wide, bar, rounds))
