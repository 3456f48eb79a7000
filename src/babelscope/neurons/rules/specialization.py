"""The neurons that carry most of a language's activity in each layer."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from einops import rearrange

from babelscope.neurons.counts import choose_neurons
from babelscope.neurons.rates import UnitCounts, check_rates, frequent
from babelscope.neurons.rules.top_rate import FrequentChoice


@dataclass(frozen=True)
class Specialization:
    """For each language and layer, the fewest neurons whose activity adds up to a share of the layer's.

    With a_j the rate at which neuron j of a layer is active on the language's tokens, S is the smallest set with
    Σ_{j in S} a_j ≥ share · Σ_j a_j: the neurons active most often, as many as it takes. It does not contrast
    languages, so sets overlap and say which languages share neurons, not which neurons are a language's alone; and it
    has no score over languages.
    Ties go to the lowest neuron; a neuron never active in the language, or active on fewer than `min_count` tokens in
    all, is never selected, though its rate is in the sum.
    Different from the paper: a causal language model's MLPs, one set per language, in the place of the encoder's and
    decoder's ReLU networks of a translation model, one set a direction; there k is 95 %.
    Raises SelectionError as `Lape` does.
    Source: Tan, Wu and Monz 2024, arXiv:2404.11201.
    """

    name: ClassVar[str] = "specialization"
    share: float = 0.95
    min_count: int = 50

    def __post_init__(self) -> None:
        check_rates(share=self.share, min_count=self.min_count)

    def select(self, counts: UnitCounts) -> FrequentChoice:
        """Which neurons belong to which language, by these counts alone."""
        rate = counts.rate()
        by_language = rearrange(rate, "l j k -> k l j")
        order = (-by_language).sort(dim=2, stable=True).indices
        running = by_language.gather(2, order).cumsum(dim=2)
        # A neuron is needed where the sum before it is short of the share.
        before = torch.cat([torch.zeros_like(running[..., :1]), running[..., :-1]], dim=2)
        needed = before < self.share * running[..., -1:] * (1 - 1e-12)
        mask = torch.zeros_like(by_language, dtype=torch.bool).scatter_(2, order, needed)
        return FrequentChoice(mask & (by_language > 0) & frequent(counts.active, self.min_count), rate)

    choose = choose_neurons


RULE = Specialization
