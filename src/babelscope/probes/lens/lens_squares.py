"""A tuned lens by least squares, in one walk over the text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from babelscope.artifacts import Origin
from babelscope.axes import Float32, Float64, Tensor
from babelscope.corpus import Batch, TokenDocument
from babelscope.errors import MeasurementError
from babelscope.models import Layout
from babelscope.probes.lens.translators import Translators
from babelscope.probes.streams import counted_rows
from babelscope.recording.walk import walk
from babelscope.recording.watchers import ReadSite
from babelscope.sites import Site


@dataclass(eq=False)
class Squares:
    """Sums of one walk that least squares needs; the column of ones carries the bias.

    They are where the first layer's stream is while text is read, so that no stream is copied to the host.
    """

    layout: Layout
    square: Float64[Tensor, "depth wide wide"]
    cross: Float64[Tensor, "depth wide hidden"]
    moved: Float64[Tensor, " depth"]
    energy: Float64[Tensor, " hidden"]
    """Sum over tokens of the last stream's squares."""
    total: Float64[Tensor, " hidden"]
    """Sum over tokens of the last stream."""
    tokens: int = 0

    @classmethod
    def zeros(cls, layout: Layout) -> "Squares":
        """Nothing read yet."""
        hidden, depths = layout.d_hidden, layout.n_layers
        device = layout.device_of(Site(0, "resid_in"))

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.float64, device=device)

        return cls(
            layout=layout,
            square=zeros(depths, hidden + 1, hidden + 1),
            cross=zeros(depths, hidden + 1, hidden),
            moved=zeros(depths),
            energy=zeros(hidden),
            total=zeros(hidden),
        )

    @property
    def hooks(self) -> Mapping[Site, ReadSite]:
        """The stream's counted rows at every depth."""
        return counted_rows(self.layout)

    def add(self, batch: Batch, values: dict[Site, Tensor]) -> None:
        """Add a batch."""
        *states, last = values.values()
        last = last.to(self.total.device, torch.float64)
        self.tokens += len(last)
        self.energy += last.square().sum(dim=0)
        self.total += last.sum(dim=0)
        for depth, state in enumerate(states):
            exact = state.to(last.device, torch.float64)
            wide = torch.cat([exact, exact.new_ones(len(exact), 1)], dim=1)
            self.square[depth] += wide.T @ wide
            self.cross[depth] += wide.T @ (last - exact)
            self.moved[depth] += (last - exact).square().sum()

    def on_host(self) -> "Squares":
        """The same sums on the CPU, for what is solved once."""
        sums = (self.square, self.cross, self.moved, self.energy, self.total)
        return Squares(self.layout, *(part.cpu() for part in sums), tokens=self.tokens)

    @property
    def variance(self) -> float:
        """Of the last stream, summed over dimensions and tokens."""
        return float((self.energy - self.total.square() / self.tokens).sum())

    def solve(self, penalty: float) -> tuple[Float32[Tensor, "depth hidden hidden"], Float32[Tensor, "depth hidden"]]:
        """Maps and biases."""
        hidden, weights, biases = self.cross.shape[2], [], []
        for square, cross in zip(self.square, self.cross, strict=True):
            ridge = torch.eye(hidden + 1, dtype=torch.float64) * penalty * square.diagonal()[:-1].mean()
            ridge[-1, -1] = 0
            move = torch.linalg.solve(square + ridge, cross)
            weights.append(torch.eye(hidden, dtype=torch.float64) + move[:-1].T)
            biases.append(move[-1])
        return torch.stack(weights).float(), torch.stack(biases).float()

    def explained(
        self, weight: Float32[Tensor, "depth hidden hidden"], bias: Float32[Tensor, "depth hidden"]
    ) -> Float64[Tensor, " depth"]:
        """Share of the last stream's variance that these maps explain."""
        move = torch.cat([(weight.double() - torch.eye(bias.shape[1])).mT, bias.double()[:, None]], dim=1)
        residual = self.moved - 2 * (move * self.cross).sum(dim=(1, 2)) + (move * (self.square @ move)).sum(dim=(1, 2))
        return 1 - residual / self.variance


def least_squares(
    layout: Layout, documents: Sequence[TokenDocument], pad: int, penalty: float, origin: Origin
) -> tuple[Translators, Squares]:
    """The ridge fit, and the sums that it came from; raises MeasurementError for fewer tokens than dimensions."""
    sums, hidden = Squares.zeros(layout), layout.d_hidden
    walk(layout, [documents], [sums], pad=pad)
    if sums.tokens <= hidden:
        raise MeasurementError(
            f"{sums.tokens} tokens came for {hidden} dimensions; expected more tokens; give more text"
        )
    sums = sums.on_host()
    weight, bias = sums.solve(penalty)
    return Translators(weight, bias, sums.tokens, sums.explained(weight, bias), origin), sums
