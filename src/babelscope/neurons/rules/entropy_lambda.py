"""Entropy less a reward for firing often."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from einops import rearrange, reduce, repeat

from babelscope.axes import Bool, Float64, Int64, Tensor
from babelscope.controls import Scored
from babelscope.errors import SelectionError
from babelscope.neurons.counts import choose_neurons
from babelscope.neurons.rates import (
    UnitCounts,
    check_rates,
    entropy_nats,
    frequent,
    quantile_threshold,
    select_lowest,
)

CLASSES = ("specific", "related", "general")
"""Classes 1, 2 and 3: active in one language, in some, in all."""
LARGEST_PENALTY, PENALTY_STEP, PENALTY_GRID = 0.2, 1e-3, 20
"""Upper end of the search for a penalty, where bisection stops, and steps of the grid that checks it."""


class LambdaChoice(NamedTuple):
    """What the penalised entropy selected."""

    mask: Bool[Tensor, "language layer neuron"]
    """True where a neuron belongs to a language."""
    classes: Int64[Tensor, "layer neuron"]
    """0 not selected or above the bar nowhere, 1 specific, 2 related, 3 general."""
    above: Int64[Tensor, "layer neuron"]
    """The same of every neuron above the bar somewhere, selected or not; 0 above it nowhere."""
    value: Float64[Tensor, "layer neuron"]
    """H / ln K − penalty · max_k p / m; NaN for a neuron never active."""
    penalty: float
    """λ in use."""
    penalty_given: float | None
    """λ that was asked for; None where it was searched."""
    threshold_bar: float
    """A selected neuron belongs to the languages in which its rate is above this."""
    search: str
    """How the penalty came about: "given", "bisection", or "grid" where bisection missed a larger one."""
    eligible: Bool[Tensor, "layer neuron"]
    """Neurons that passed `min_count`."""

    @property
    def score(self) -> Float64[Tensor, "language layer neuron"]:
        """The value, for each language."""
        return repeat(self.value, "l j -> k l j", k=len(self.mask))

    @property
    def facts(self) -> dict[str, Any]:
        """What was found, saved beside the rule's parameters; the penalty in use takes the place of the one given."""
        return {
            "penalty_given": self.penalty_given,
            "penalty": self.penalty,
            "penalty_search": self.search,
            "threshold_bar": self.threshold_bar,
            "classes": sizes_of(self.classes),
            "classes_above_bar": sizes_of(self.above),
        }


@dataclass(frozen=True)
class EntropyLambda:
    """Entropy less a reward for firing often, so that no filter is needed.

    s = H / ln K − λ · max_k p / m with m = (1/K) Σ_{k=1..K} 1/k: the normalised form of the published code; the paper
    writes s = H − λ · max_k p. Selected: the round(top_rate · LJ) neurons of lowest s. With T_b as in LAPE and
    N = #{k: p_k > T_b}, a selected neuron is specific (N = 1), related (1 < N < K) or general (N = K), and belongs to
    those N languages, general ones to all.

    penalty: λ; None takes the largest in [0, 0.2] that selects no general neuron, by bisection to 0.001.  The count of
    general neurons need not rise steadily with λ: a grid of 21 values is tried too, and where it holds a larger λ
    without general neurons that one is taken and `search` says "grid".
    Differs from the published code: a neuron never active, or on fewer than `min_count` tokens in all, is never
    selected; ties go to the lowest (layer, neuron); any number of languages.
    Raises as `Lape` does, and SelectionError where every λ tried selects a general neuron.
    Source: arXiv:2505.21505.
    """

    name: ClassVar[str] = "entropy-lambda"
    top_rate: float = 0.01
    penalty: float | None = None
    bar_rate: float = 0.95
    min_count: int = 50

    def __post_init__(self) -> None:
        check_rates(top_rate=self.top_rate, bar_rate=self.bar_rate, min_count=self.min_count)

    def select(self, counts: UnitCounts) -> LambdaChoice:
        """Which neurons belong to which language, by these counts alone; a penalty not given is searched anew."""
        rate = counts.rate()
        n_languages = rate.shape[-1]
        spread = entropy_nats(rate) / math.log(n_languages)
        reward = reduce(rate, "l j k -> l j", "max") / (sum(1 / k for k in range(1, n_languages + 1)) / n_languages)
        threshold = quantile_threshold(rate, self.bar_rate)
        above = rate > threshold
        languages_above = reduce(above.long(), "l j k -> l j", "sum")
        eligible, size = frequent(counts.active, self.min_count), round(self.top_rate * spread.numel())

        def lowest(strength: float) -> Bool[Tensor, "layer neuron"]:
            return select_lowest(spread - strength * reward, eligible, size)

        def without_general(strength: float) -> bool:
            return not bool((lowest(strength) & (languages_above == n_languages)).any())

        penalty, search = (self.penalty, "given") if self.penalty is not None else search_penalty(without_general)
        chosen = lowest(penalty)
        kind = torch.where(languages_above == n_languages, 3, torch.where(languages_above > 1, 2, languages_above))
        return LambdaChoice(
            mask=rearrange(chosen[..., None] & above, "l j k -> k l j").contiguous(),
            classes=kind * chosen,
            above=kind,
            value=spread - penalty * reward,
            penalty=penalty,
            penalty_given=self.penalty,
            threshold_bar=threshold,
            search=search,
            eligible=eligible,
        )

    def score(self, counts: UnitCounts) -> Scored:
        """s; lower is more selective."""
        choice = self.select(counts)
        return Scored(choice.value, choice.eligible)

    choose = choose_neurons


def sizes_of(classes: Int64[Tensor, "layer neuron"]) -> dict[str, int]:
    """Neurons of each class."""
    return {name: int((classes == number).sum()) for number, name in enumerate(CLASSES, start=1)}


def search_penalty(holds: Callable[[float], bool]) -> tuple[float, str]:
    """Largest λ in [0, 0.2] for which `holds` is true, and how it was found."""
    grid = [LARGEST_PENALTY * step / PENALTY_GRID for step in range(PENALTY_GRID, -1, -1)]
    on_grid = next((strength for strength in grid if holds(strength)), None)
    if on_grid is None:
        raise SelectionError(
            f"every penalty from 0 to {LARGEST_PENALTY} selects neurons active in all languages; expected one that "
            "does not; give a penalty, or lower top_rate"
        )
    if on_grid == LARGEST_PENALTY:
        return LARGEST_PENALTY, "bisection"
    if not holds(0.0):
        return on_grid, "grid"
    low, high = 0.0, LARGEST_PENALTY
    while high - low > PENALTY_STEP:
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return (on_grid, "grid") if on_grid > high else (low, "bisection")


RULE = EntropyLambda
