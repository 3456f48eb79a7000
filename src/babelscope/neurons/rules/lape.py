"""Language activation probability entropy."""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from einops import rearrange, reduce, repeat

from babelscope.axes import Bool, Float64, Tensor
from babelscope.controls import Scored
from babelscope.neurons.counts import choose_neurons
from babelscope.neurons.rates import (
    UnitCounts,
    check_rates,
    entropy_nats,
    frequent,
    quantile_threshold,
    select_lowest,
)


class LapeChoice(NamedTuple):
    """What LAPE selected, and by which thresholds."""

    mask: Bool[Tensor, "language layer neuron"]
    """True where a neuron belongs to a language."""
    entropy: Float64[Tensor, "layer neuron"]
    """Nats; NaN for a neuron that is not eligible."""
    threshold_filter: float
    """A neuron is eligible where its highest rate is above this."""
    threshold_bar: float
    """A selected neuron belongs to the languages in which its rate is above this."""
    eligible: Bool[Tensor, "layer neuron"]
    """Neurons that passed the filter and `min_count`."""

    @property
    def score(self) -> Float64[Tensor, "language layer neuron"]:
        """The entropy, for each language."""
        return repeat(self.entropy, "l j -> k l j", k=len(self.mask))

    @property
    def facts(self) -> dict[str, Any]:
        """What was found, saved beside the rule's parameters."""
        return {
            "threshold_filter": self.threshold_filter,
            "threshold_bar": self.threshold_bar,
            "eligible": int(self.eligible.sum()),
        }


@dataclass(frozen=True)
class Lape:
    """Language activation probability entropy: neurons active in few languages, often enough in one of them.

    p = c / N; H = -Σ_k q_k ln q_k, q = p / Σ_k p; T_f and T_b the rth smallest of all L·J·K rates with
    r = round(filter_rate · LJK) and round(bar_rate · LJK); eligible: max_k p > T_f; selected: the round(top_rate · LJ)
    eligible neurons of lowest H; of language k: selected with p[., k] > T_b. Thresholds are global over layers and
    languages; `round` is Python's, half to even.

    Differs from the published code:
    - a neuron never active (entropy 0 there), or active on fewer than `min_count` tokens in all, is never selected;
    - ties, to 12 decimals of H, go to the lowest (layer, neuron), not to whatever the sort left first;
    - fewer eligible neurons than asked for give a smaller set; filtered ones are never topped up;
    - every language keeps its row, also when empty, and a selection of nothing is all rows empty;
    - a language without tokens, and counts that are negative or above the tokens, are refused.
    min_count=0 selects what the published code does wherever none of the other points is met.

    Raises SelectionError for such counts and for rates outside [0, 1], LanguageError for fewer than two languages.
    Source: Tang et al. 2024, arXiv:2402.16438.
    """

    name: ClassVar[str] = "lape"
    top_rate: float = 0.01
    filter_rate: float = 0.95
    bar_rate: float = 0.95
    min_count: int = 50

    def __post_init__(self) -> None:
        check_rates(
            top_rate=self.top_rate, filter_rate=self.filter_rate, bar_rate=self.bar_rate, min_count=self.min_count
        )

    def select(self, counts: UnitCounts) -> LapeChoice:
        """Which neurons belong to which language, by these counts alone."""
        rate = counts.rate()
        threshold_filter = quantile_threshold(rate, self.filter_rate)
        one_bar = self.bar_rate == self.filter_rate
        threshold_bar = threshold_filter if one_bar else quantile_threshold(rate, self.bar_rate)
        eligible = frequent(counts.active, self.min_count) & (reduce(rate, "l j k -> l j", "max") > threshold_filter)
        # Controls select hundreds of times, and the entropy of all neurons would be most of it.
        entropy = torch.full(eligible.shape, torch.nan, dtype=torch.float64)
        entropy[eligible] = entropy_nats(rate[eligible])
        chosen = select_lowest(entropy, eligible, round(self.top_rate * entropy.numel()))
        mask = rearrange(chosen[..., None] & (rate > threshold_bar), "l j k -> k l j")
        return LapeChoice(mask.contiguous(), entropy, threshold_filter, threshold_bar, eligible)

    def score(self, counts: UnitCounts) -> Scored:
        """The entropy of every neuron, NaN where it is never active; lower is more selective."""
        return Scored(entropy_nats(counts.rate()), self.select(counts).eligible)

    # Choosing in an observation is the same for every rule: a function of `neuron_selection`, as a method.
    choose = choose_neurons


RULE = Lape
