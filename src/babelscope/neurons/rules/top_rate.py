"""The baseline: neurons that are active most often."""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from einops import rearrange

from babelscope.axes import Bool, Float64, Tensor
from babelscope.neurons.counts import choose_neurons
from babelscope.neurons.rates import UnitCounts, check_rates, frequent, select_lowest


class FrequentChoice(NamedTuple):
    """The neurons active most often, by language."""

    mask: Bool[Tensor, "language layer neuron"]
    """True where a neuron belongs to a language."""
    rate: Float64[Tensor, "layer neuron language"]
    """Share of the language's tokens on which each neuron is active."""

    @property
    def score(self) -> Float64[Tensor, "language layer neuron"]:
        """The rate."""
        return rearrange(self.rate, "l j k -> k l j")

    @property
    def facts(self) -> dict[str, Any]:
        """Nothing is found beside the rule's parameters."""
        return {}


@dataclass(frozen=True)
class TopRate:
    """Activation-probability baseline: for each language the round(top_rate · LJ) neurons active most often in it.

    It does not contrast languages, so most of what it finds is active in all of them: what LAPE has to beat; and it
    has no score over languages.
    Ties go to the lowest (layer, neuron); a neuron never active in the language, or active on fewer than `min_count`
    tokens in all, is never selected. Raises SelectionError as `Lape` does.
    """

    name: ClassVar[str] = "top-rate"
    top_rate: float = 0.01
    min_count: int = 50

    def __post_init__(self) -> None:
        check_rates(top_rate=self.top_rate, min_count=self.min_count)

    def select(self, counts: UnitCounts) -> FrequentChoice:
        """Which neurons belong to which language, by these counts alone."""
        rate = counts.rate()
        eligible, size = frequent(counts.active, self.min_count), round(self.top_rate * rate[..., 0].numel())
        rows = [select_lowest(-column, eligible & (column > 0), size) for column in rate.unbind(dim=-1)]
        return FrequentChoice(torch.stack(rows), rate)

    choose = choose_neurons


RULE = TopRate
