"""Counts and sums of features → scores and masks by language; arrays in, arrays out, no model."""

import math
from typing import NamedTuple

import torch
from einops import reduce

from babelscope.axes import Bool, Float64, Int64, Tensor
from babelscope.errors import LanguageError, SelectionError

SLACK = 1e-9
"""Shares that miss a threshold by less, relative to it, are on it: 3/10 is three times 1/10, whatever the last bit."""


class LangfirChoice(NamedTuple):
    """What LangFIR selected, before any cap."""

    mask: Bool[Tensor, "language feature"]
    """True where a feature belongs to a language."""
    consistent: Bool[Tensor, "language feature"]
    """Present in enough of the language's documents, whatever it does on random tokens."""
    log_ratio: Float64[Tensor, "language feature"]
    """ln of the rate on the language's text over the rate on random tokens, half a token added to both counts."""


def langfir_mask(
    fired: Int64[Tensor, "feature language"],
    tokens: Int64[Tensor, " language"],
    present: Int64[Tensor, "feature language"],
    documents: Int64[Tensor, " language"],
    random_fired: Int64[Tensor, "feature language"],
    random_tokens: Int64[Tensor, " language"],
    *,
    tau: float | int,
    ratio: float | int,
    min_count: int = 0,
) -> LangfirChoice:
    """Features consistently active on a language's text that random tokens do not activate as often.

    C_k = {present in a share ≥ τ of the documents of k}; kept are those of C_k with
    rate_k ≥ ratio · rate_random, in shares of tokens.  ratio = inf keeps what no random token activated, C_k \\ R.
    min_count: tokens of k on which a kept feature fired at least.
    A language's features depend on its own text and the random tokens alone, on no other language's text.
    Source: LangFIR, arXiv:2604.03532, whose thresholds are not public; it takes the difference of sets.  Rates differ
    from that because random tokens of a multilingual vocabulary contain every script, so that a few firings there say
    little.
    Raises SelectionError for thresholds or counts that can not be.
    """
    if not 0 < tau <= 1 or not ratio > 0 or min_count < 0:
        raise SelectionError(
            f"tau {tau}, ratio {ratio}, min_count {min_count}; expected 0 < tau <= 1, ratio > 0, min_count >= 0"
        )
    check_counts(fired, tokens, "text")
    check_counts(random_fired, random_tokens, "random tokens")
    consistent = present >= tau * documents.double() * (1 - SLACK)
    rate, noise = fired.double() / tokens, random_fired.double() / random_tokens
    above = random_fired == 0 if math.isinf(ratio) else rate >= ratio * noise * (1 - SLACK)
    mask = consistent & above & (fired >= max(1, min_count))
    smooth = (fired.double() + 0.5) / (tokens + 1) / ((random_fired.double() + 0.5) / (random_tokens + 1))
    return LangfirChoice(mask.T.contiguous(), consistent.T.contiguous(), smooth.log().T.contiguous())


def check_counts(fired: Tensor, tokens: Tensor, what: str) -> None:
    """Raise SelectionError, in one line, unless 0 <= count <= tokens and every language has tokens."""
    if not bool((tokens > 0).all()):
        places = (tokens <= 0).nonzero().flatten().tolist()
        raise SelectionError(f"{what}: no tokens for the languages at {places} (from 0); observe some, or leave it out")
    if bool((fired < 0).any()) or bool((fired > tokens).any()):
        raise SelectionError(f"{what}: counts below 0 or above the number of tokens; expected neither; observe again")


def monolinguality(mean: Float64[Tensor, "feature language"]) -> Float64[Tensor, "feature language"]:
    """ν = mean of a language minus the mean of the other languages' means; Σ_k ν = 0.

    ν_k = μ_k - 1/(K-1) Σ_{m≠k} μ_m, every other language weighing the same.  In units of μ: a feature scaled by a has
    ν scaled by a, so loud features lead unless μ is a rate.
    Source: Deng et al. 2025, arXiv:2505.05111, which does not ask for ν > 0.
    Raises LanguageError for fewer than two languages, SelectionError for a mean that is not finite.
    """
    n = mean.shape[1]
    if n < 2:
        raise LanguageError(f"{n} language came; monolinguality compares languages; observe another language too")
    if not bool(torch.isfinite(mean).all()):
        raise SelectionError("a mean is NaN or infinite; expected finite means of every language; observe again")
    return (n * mean - reduce(mean, "j k -> j 1", "sum")) / (n - 1)


def top_mask(
    score: Float64[Tensor, "feature language"], allowed: Bool[Tensor, "feature language"], count: int
) -> Bool[Tensor, "language feature"]:
    """For each language the `count` allowed features of highest score; ties go to the lowest feature."""
    mask = torch.zeros(score.T.shape, dtype=torch.bool)
    for k in range(score.shape[1]):
        places = allowed[:, k].nonzero().flatten()
        order = score[places, k].sort(descending=True, stable=True).indices[:count]
        mask[k, places[order]] = True
    return mask
