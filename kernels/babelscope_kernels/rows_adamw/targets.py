"""Where trained rows live: the rows of many weights, as one tall matrix."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from babelscope_kernels.errors import KernelError


@dataclass(frozen=True, eq=False)
class RowTargets:
    """Rows of several weights, in the order of one tall matrix [row, hidden] of masters.

    A weight may be any 2-D view [unit, hidden], such as `down.weight.T`, whose rows are neurons; all weights are of one
    width, dtype and device, and no two rows share memory. The tensors are held, not copied: writes go into the model.
    Raises KernelError for weights or indices that do not fit together.
    """

    weights: Sequence[Tensor]
    """[unit, hidden] each."""
    rows: Sequence[Tensor]
    """int64 row numbers of each weight; no row twice. An empty one is allowed."""
    _table: list[Tensor] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        if len(self.weights) != len(self.rows) or not len(self.weights):
            raise KernelError(
                f"rows_adamw: {len(self.weights)} weights and {len(self.rows)} row lists, expected as many"
            )
        kinds = {(weight.dtype, weight.device, weight.shape[1:]) for weight in self.weights}
        if len(kinds) != 1 or self.weights[0].ndim != 2 or not self.weights[0].is_floating_point():
            shown = sorted(f"{dtype} {device} {tuple(rest)}" for dtype, device, rest in kinds)
            raise KernelError(
                f"rows_adamw: weights of {shown}, expected 2-D floating weights of one dtype, device and width"
            )
        for number, (weight, rows) in enumerate(zip(self.weights, self.rows, strict=True)):
            if rows.ndim != 1 or rows.dtype != torch.int64 or rows.device != weight.device:
                raise KernelError(
                    f"rows_adamw: rows of weight {number} are {rows.dtype} {tuple(rows.shape)} on {rows.device}, "
                    f"expected torch.int64 [row] on {weight.device}"
                )
            if torch.compiler.is_compiling():
                continue  # the numbers are not known while tracing
            if len(rows) and (int(rows.min()) < 0 or int(rows.max()) >= len(weight)):
                raise KernelError(
                    f"rows_adamw: weight {number} has rows 0–{len(weight) - 1}, got {int(rows.min())}–{int(rows.max())}"
                )
            if len(rows.unique()) != len(rows):
                raise KernelError(f"rows_adamw: a row of weight {number} is named twice")

    @property
    def n_rows(self) -> int:
        """Rows of the tall matrix."""
        return sum(len(rows) for rows in self.rows)

    @property
    def n_hidden(self) -> int:
        """Columns of the tall matrix."""
        return self.weights[0].shape[1]

    def blocks(self) -> Iterator[tuple[Tensor, Tensor, slice]]:
        """(weight, its rows, their place in the tall matrix), in order."""
        first = 0
        for weight, rows in zip(self.weights, self.rows, strict=True):
            yield weight, rows, slice(first, first + len(rows))
            first += len(rows)

    def read(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The rows as one new matrix [row, hidden]."""
        out = torch.empty((self.n_rows, self.n_hidden), dtype=dtype, device=self.weights[0].device)
        for weight, rows, place in self.blocks():
            out[place] = weight.detach().index_select(0, rows).to(dtype)
        return out

    def write_(self, values: Tensor) -> None:
        """Put [row, hidden] values into the weights, rounded to their dtype; no other byte changes."""
        with torch.no_grad():
            for weight, rows, place in self.blocks():
                weight.index_copy_(0, rows, values[place].to(weight.dtype))

    def table(self) -> tuple[Tensor, Tensor]:
        """Of each row of the tall matrix: its number in its weight, and the number of that weight; int64 [row]."""
        if not self._table:
            which = [torch.full_like(rows, number) for number, rows in enumerate(self.rows)]
            self._table.extend((torch.cat(list(self.rows)), torch.cat(which)))
        return self._table[0], self._table[1]
