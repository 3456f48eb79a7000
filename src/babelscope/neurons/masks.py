"""Counts → which neurons belong to which language, by three published rules; masks in, masks out, no model."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from einops import rearrange, reduce

from babelscope.axes import Bool, Float64, Int64, Tensor
from babelscope.errors import SelectionError
from babelscope.neurons.rates import (
    CountTensor,
    TokenTensor,
    check_rates,
    entropy_nats,
    firing_rate,
    frequent,
    quantile_threshold,
    select_lowest,
)

LARGEST_PENALTY, PENALTY_STEP, PENALTY_GRID = 0.2, 1e-3, 20
"""Upper end of the search for a penalty, where bisection stops, and steps of the grid that checks it."""


class LapeChoice(NamedTuple):
    """What LAPE selected, and by which thresholds."""

    mask: Bool[Tensor, "language layer neuron"]
    """True where a neuron belongs to a language."""
    entropy: Float64[Tensor, "layer neuron"]
    """Nats; NaN for a neuron never active."""
    threshold_filter: float
    """A neuron is eligible where its highest rate is above this."""
    threshold_bar: float
    """A selected neuron belongs to the languages in which its rate is above this."""
    eligible: Bool[Tensor, "layer neuron"]
    """Neurons that passed the filter and `min_count`."""


class LambdaChoice(NamedTuple):
    """What the penalised entropy selected."""

    mask: Bool[Tensor, "language layer neuron"]
    """True where a neuron belongs to a language."""
    classes: Int64[Tensor, "layer neuron"]
    """0 not selected or above the bar nowhere, 1 specific, 2 related, 3 general."""
    above: Int64[Tensor, "layer neuron"]
    """The same of every neuron above the bar somewhere, selected or not; 0 above it nowhere."""
    score: Float64[Tensor, "layer neuron"]
    """H / ln K − penalty · max_k p / m; NaN for a neuron never active."""
    penalty: float
    """λ in use."""
    threshold_bar: float
    """A selected neuron belongs to the languages in which its rate is above this."""
    search: str
    """How the penalty came about: "given", "bisection", or "grid" where bisection missed a larger one."""
    eligible: Bool[Tensor, "layer neuron"]
    """Neurons that passed `min_count`."""


class TopRateChoice(NamedTuple):
    """The neurons active most often, by language."""

    mask: Bool[Tensor, "language layer neuron"]
    """True where a neuron belongs to a language."""
    rate: Float64[Tensor, "layer neuron language"]
    """Share of the language's tokens on which each neuron is active."""


def lape_mask(
    active: CountTensor,
    tokens: TokenTensor,
    *,
    top_rate: float,
    filter_rate: float,
    bar_rate: float,
    min_count: int,
    denominator: CountTensor | None = None,
) -> LapeChoice:
    """Language activation probability entropy: few languages, often enough in one of them.

    p = c / N; H = -Σ_k q_k ln q_k, q = p / Σ_k p; T_f and T_b the kth smallest of all L·J·K rates with
    k = round(filter_rate · LJK) and round(bar_rate · LJK); eligible: max_k p > T_f; selected: the round(top_rate · LJ)
    eligible neurons of lowest H; of language k: selected with p[., k] > T_b.  Thresholds are global over layers and
    languages; `round` is Python's, half to even.

    Differs from the published code:
    - a neuron never active (entropy 0 there), or active on fewer than `min_count` tokens in all, is never selected;
    - ties, to 12 decimals of H, go to the lowest (layer, neuron), not to whatever the sort left first;
    - fewer eligible neurons than asked for give a smaller set; filtered ones are never topped up;
    - every language keeps its row, also when empty, and a selection of nothing is all rows empty;
    - a language without tokens, and counts that are negative or above the tokens, are refused.
    min_count=0 selects what the published code does wherever none of the other points is met.

    denominator: see `firing_rate`.
    Raises SelectionError for such counts and for rates outside [0, 1], LanguageError for fewer than two languages.
    Source: Tang et al. 2024, arXiv:2402.16438.
    """
    check_rates(top_rate=top_rate, filter_rate=filter_rate, bar_rate=bar_rate, min_count=min_count)
    rate = firing_rate(active, tokens, denominator=denominator)
    entropy = entropy_nats(rate)
    threshold_filter = quantile_threshold(rate, filter_rate)
    threshold_bar = threshold_filter if bar_rate == filter_rate else quantile_threshold(rate, bar_rate)
    eligible = frequent(active, min_count) & (reduce(rate, "l j k -> l j", "max") > threshold_filter)
    chosen = select_lowest(entropy, eligible, round(top_rate * entropy.numel()))
    mask = rearrange(chosen[..., None] & (rate > threshold_bar), "l j k -> k l j")
    return LapeChoice(mask.contiguous(), entropy, threshold_filter, threshold_bar, eligible)


def entropy_lambda_mask(
    active: CountTensor,
    tokens: TokenTensor,
    *,
    top_rate: float,
    penalty: float | None,
    bar_rate: float,
    min_count: int,
    denominator: CountTensor | None = None,
) -> LambdaChoice:
    """Entropy less a reward for firing often, so that no filter is needed.

    s = H / ln K − λ · max_k p / m with m = (1/K) Σ_{k=1..K} 1/k: the normalised form of the published code; the paper
    writes s = H − λ · max_k p.  Selected: the round(top_rate · LJ) neurons of lowest s.  With T_b as in LAPE and
    N = #{k: p_k > T_b}, a selected neuron is specific (N = 1), related (1 < N < K) or general (N = K), and belongs to
    those N languages, general ones to all.

    penalty: λ; None takes the largest in [0, 0.2] that selects no general neuron, by bisection to 0.001.  The count of
    general neurons need not rise steadily with λ: a grid of 21 values is tried too, and where it holds a larger λ
    without general neurons that one is taken and `search` says "grid".
    Differs from the published code: a neuron never active, or on fewer than `min_count` tokens in all, is never
    selected; ties go to the lowest (layer, neuron); any number of languages.
    Raises as `lape_mask` does, and SelectionError where every λ tried selects a general neuron.
    Source: arXiv:2505.21505.
    """
    check_rates(top_rate=top_rate, bar_rate=bar_rate, min_count=min_count)
    rate = firing_rate(active, tokens, denominator=denominator)
    n_languages = rate.shape[-1]
    spread = entropy_nats(rate) / math.log(n_languages)
    reward = reduce(rate, "l j k -> l j", "max") / (sum(1 / k for k in range(1, n_languages + 1)) / n_languages)
    threshold = quantile_threshold(rate, bar_rate)
    above = rate > threshold
    languages_above = reduce(above.long(), "l j k -> l j", "sum")
    eligible, count = frequent(active, min_count), round(top_rate * spread.numel())

    def choose(strength: float) -> Bool[Tensor, "layer neuron"]:
        return select_lowest(spread - strength * reward, eligible, count)

    def without_general(strength: float) -> bool:
        return not bool((choose(strength) & (languages_above == n_languages)).any())

    found, search = (penalty, "given") if penalty is not None else search_penalty(without_general)
    chosen = choose(found)
    kind = torch.where(languages_above == n_languages, 3, torch.where(languages_above > 1, 2, languages_above))
    mask = rearrange(chosen[..., None] & above, "l j k -> k l j").contiguous()
    return LambdaChoice(mask, kind * chosen, kind, spread - found * reward, found, threshold, search, eligible)


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


def top_rate_mask(
    active: CountTensor,
    tokens: TokenTensor,
    *,
    top_rate: float,
    min_count: int,
    denominator: CountTensor | None = None,
) -> TopRateChoice:
    """Activation-probability baseline: for each language the round(top_rate · LJ) neurons active most often in it.

    It does not contrast languages, so most of what it finds is active in all of them: what LAPE has to beat.
    Ties go to the lowest (layer, neuron); a neuron never active in the language, or active on fewer than `min_count`
    tokens in all, is never selected.  Raises SelectionError as `lape_mask` does.
    """
    check_rates(top_rate=top_rate, min_count=min_count)
    rate = firing_rate(active, tokens, denominator=denominator)
    eligible, count = frequent(active, min_count), round(top_rate * rate[..., 0].numel())
    rows = [select_lowest(-one, eligible & (one > 0), count) for one in rate.unbind(dim=-1)]
    return TopRateChoice(torch.stack(rows), rate)
