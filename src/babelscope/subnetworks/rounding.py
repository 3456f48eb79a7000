"""What of a change is left in weights of fewer bits: which values do not move, and how much of its length is lost."""

from dataclasses import dataclass
from typing import NamedTuple

import torch

from babelscope.axes import Float, Tensor


class Rounded(NamedTuple):
    """Sums over the changed values of some cells, before they are shares."""

    values: int
    unmoved: int
    square: float
    lost: float


@dataclass(frozen=True)
class CastLoss:
    """What a cast to the weights' dtype takes of a change."""

    dtype: str
    """Of the weights, such as "bfloat16"."""
    values: int
    """Changed values: those whose change is not 0."""
    unmoved: float
    """Share of them whose weight is bit for bit what it was."""
    lost: float
    """Length of what is missing over the length of the change: 0 is exact, 1 is as if nothing had been added."""

    @classmethod
    def over(cls, dtype: torch.dtype, parts: list[Rounded]) -> "CastLoss":
        """Of all cells together; a change of nothing loses nothing."""
        values, unmoved = sum(part.values for part in parts), sum(part.unmoved for part in parts)
        square, lost_square = sum(part.square for part in parts), sum(part.lost for part in parts)
        return cls(
            str(dtype).removeprefix("torch."),
            values,
            unmoved / values if values else 0.0,
            (lost_square / square) ** 0.5 if square else 0.0,
        )

    @property
    def exact(self) -> bool:
        """Whether all but float32's own rounding is left."""
        return not self.unmoved and self.lost < 1e-3

    def line(self) -> str:
        """For the log and for people."""
        return (
            f"in {self.dtype}, {self.unmoved:.1%} of {self.values} changed values do not move and {self.lost:.1%} of "
            "the change's length is lost to rounding"
        )


def rounded(
    base: Float[Tensor, "cell ..."], change: Float[Tensor, "cell ..."], dtype: torch.dtype
) -> tuple[Float[Tensor, "cell ..."], Rounded]:
    """What cells of `base` move by when base + change is cast to a dtype, and the sums of `CastLoss`."""
    start = base.to(dtype)
    exact = change.double()
    achieved = (start.double() + exact).to(dtype).double() - start.double()
    nonzero = exact != 0
    return achieved, Rounded(
        int(nonzero.sum()),
        int((nonzero & (achieved == 0)).sum()),
        float(exact.square().sum()),
        float((achieved - exact).square().sum()),
    )
