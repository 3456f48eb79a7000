"""Counts → share of tokens on which a neuron is active → its entropy over languages."""

import math
from typing import NamedTuple

import numpy as np
import torch
from einops import reduce

from babelscope.axes import Bool, Float, Float64, Int, Tensor
from babelscope.errors import LanguageError, SelectionError, refuse_no_number

CountTensor = Int[Tensor, "layer neuron language"] | Float[Tensor, "layer neuron language"]
"""Whole numbers of tokens; floating point is accepted so that NaN gets its own message."""
TokenTensor = Int[Tensor, " language"] | Float[Tensor, " language"]
DECIMALS = 12
"""Scores equal to so many decimals are ties: the last bits, which differ by machine, decide nothing."""


class UnitCounts(NamedTuple):
    """What a rule reads of the units that it chooses among."""

    active: CountTensor
    """Tokens on which each unit was active."""
    tokens: TokenTensor
    """Tokens counted."""
    denominator: CountTensor | None = None
    """In an MoE, the tokens routed to each neuron's expert; None where all tokens pass every unit."""

    def rate(self) -> Float64[Tensor, "layer neuron language"]:
        """`firing_rate` of these counts."""
        return firing_rate(self.active, self.tokens, denominator=self.denominator)


def firing_rate(
    active: CountTensor,
    tokens: TokenTensor,
    *,
    denominator: CountTensor | None = None,
) -> Float64[Tensor, "layer neuron language"]:
    """Share of a language's tokens on which each neuron is active, in [0, 1].

    p[l, j, k] = c[l, j, k] / N[k], in float64, exact for counts below 2⁵³.
    denominator: tokens each neuron could have been active on, where these are not all: in an MoE, the tokens routed to
    its expert. A neuron whose expert got no token of a language has rate 0 there.
    Raises SelectionError for a language without tokens, and for counts that are negative, NaN, or above the tokens.
    """
    check_unit_counts(active, tokens, denominator)
    if denominator is None:
        return active.double() / tokens.double()
    return active.double() / denominator.double().clamp(min=1)


def check_unit_counts(active: Tensor, tokens: Tensor, denominator: Tensor | None) -> None:
    """Raise SelectionError, in one line, with every fault of the counts."""
    room = tokens if denominator is None else denominator
    # Hundreds of resamples come here: what is whole is seen in one look, and NaN is within no bounds.
    if bool((tokens > 0).all()) and bool(((active >= 0) & (active <= room)).all()):
        return
    faults = []
    if not bool((tokens > 0).all()):
        places = (~(tokens > 0)).nonzero().flatten().tolist()
        faults.append(f"no tokens for the languages at {', '.join(map(str, places))} (from 0)")
    if active.is_floating_point() and bool(active.isnan().any()):
        faults.append("counts that are NaN")
    if bool((active < 0).any()):
        faults.append(f"a count of {active.min().item()}")
    if bool((active > room).any()):
        faults.append("counts above the number of tokens")
    if faults:
        raise SelectionError(
            f"{'; '.join(faults)}; expected 0 <= count <= tokens and tokens > 0 everywhere; "
            "observe text of every language, or leave the language out"
        )


def entropy_nats(rate: Float[Tensor, "*neuron language"]) -> Float64[Tensor, "*neuron"]:
    """Spread of each neuron's activity over languages; low means selective.

    H = -Σ_k q_k ln q_k with q = rate / Σ_k rate.  0 (one language) … ln n_language (all alike), in nats.
    A neuron never active has no spread: NaN, so that it cannot be selected by mistake.
    The sum runs over sorted rates, so that the order of the languages changes no bit.

    rate: share of a language's tokens on which the neuron is active, in [0, 1].
    Raises LanguageError if fewer than two languages are given.
    Source: Tang et al. 2024, arXiv:2402.16438; its code gives a neuron never active the entropy 0.
    """
    n_languages = rate.shape[-1]
    if n_languages < 2:
        raise LanguageError(
            f"{n_languages} language came; an entropy over languages needs at least two; observe another language too"
        )
    ordered = torch.from_numpy(np.sort(rate.double().contiguous().numpy(), axis=-1))
    share = ordered / ordered.sum(dim=-1, keepdim=True)
    # numpy's logarithm takes a fifth of the time of torch's entr, and every resample of a control comes here.
    logarithm = torch.from_numpy(np.log(share.numpy(), out=np.zeros(share.shape), where=share.numpy() != 0))
    return (0.0 - (share * logarithm).sum(dim=-1)).clamp(0.0, math.log(n_languages))


def quantile_threshold(rate: Float64[Tensor, "layer neuron language"], share: float) -> float:
    """The kth smallest of all rates, k = round(share · number of rates) from 1; 0 where k is 0."""
    k = round(share * rate.numel())
    return 0.0 if k == 0 else float(np.partition(rate.numpy().ravel(order="K"), k - 1)[k - 1])


def frequent(active: CountTensor, min_count: int) -> Bool[Tensor, "layer neuron"]:
    """Neurons active on at least `min_count` tokens of all languages together, and on at least one."""
    return reduce(active, "l j k -> l j", "sum") >= max(min_count, 1)


def select_lowest(
    score: Float64[Tensor, "layer neuron"], allowed: Bool[Tensor, "layer neuron"], count: int
) -> Bool[Tensor, "layer neuron"]:
    """The `count` allowed neurons of lowest score, all where there are fewer; ties go to the lowest (layer, neuron)."""
    places = (allowed & ~score.isnan()).flatten().nonzero().flatten()
    order = score.flatten()[places].round(decimals=DECIMALS).sort(stable=True).indices
    chosen = torch.zeros(score.numel(), dtype=torch.bool)
    chosen[places[order[:count]]] = True
    return chosen.reshape(score.shape)


def check_rates(*, min_count: int, **rates: float) -> None:
    """Raise SelectionError for rates outside [0, 1] and for a negative min_count, naming all of them."""
    refuse_no_number({"min_count": min_count, **rates}, SelectionError)
    faults = [f"{name} {value}" for name, value in rates.items() if not 0 <= value <= 1]
    faults += [f"min_count {min_count}"] if min_count < 0 else []
    if faults:
        raise SelectionError(
            f"{', '.join(faults)}; expected rates from 0 to 1 and a min_count of 0 or more; correct the parameter"
        )
