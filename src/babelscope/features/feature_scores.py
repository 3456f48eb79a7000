"""What rules of features read and give, and the formulas they share; arrays in, arrays out, no model."""

from typing import Any, NamedTuple

import torch
from einops import reduce

from babelscope.artifacts.feature_observation import FeatureObservation
from babelscope.axes import Bool, Float, Float64, Int64, Tensor
from babelscope.errors import LanguageError, SelectionError

SLACK = 1e-9
"""Shares that miss a threshold by less, relative to it, are on it: 3/10 is three times 1/10, whatever the last bit."""


CountTable = Int64[Tensor, "feature language"] | Float64[Tensor, "feature language"]
Amount = Int64[Tensor, " language"] | Float64[Tensor, " language"]
"""Whole numbers, in either form."""


class FeatureCounts(NamedTuple):
    """What rules read of features, of all text or of a resample; random tokens are never resampled."""

    fired: CountTable
    """Tokens on which each feature fired."""
    tokens: Amount
    present: CountTable
    """Documents in which each feature fired."""
    documents: Amount
    value: Float64[Tensor, "feature language"]
    """Sum of values over tokens, those where it did not fire being 0."""
    random_fired: CountTable
    random_tokens: Amount
    random_present: CountTable
    """Random sequences in which each feature fired."""
    random_sequences: Amount

    @classmethod
    def read(cls, observed: FeatureObservation) -> "FeatureCounts":
        """Of all text of an observation."""
        noise = observed.random
        return cls(
            fired=observed.fired,
            tokens=observed.tokens,
            present=observed.present,
            documents=observed.documents,
            value=observed.sum,
            random_fired=noise.fired,
            random_tokens=noise.tokens,
            random_present=noise.present,
            random_sequences=noise.sequences,
        )

    def rate(self) -> Float64[Tensor, "feature language"]:
        """Share of tokens on which each feature fires."""
        return self.fired.double() / self.tokens


class FeatureChoice(NamedTuple):
    """What a rule selected."""

    mask: Bool[Tensor, "language feature"]
    """True where a feature belongs to a language."""
    score: Float64[Tensor, "language feature"]
    """Higher is better."""
    counted: dict[str, Bool[Tensor, "language feature"]]
    """Masks of candidates whose sizes by language are saved with the set; "uncapped" is before any cap."""
    facts: dict[str, Any]
    """What was found, such as thresholds; saved with the set."""


def check_fired_counts(fired: Tensor, tokens: Tensor, what: str) -> None:
    """Raise SelectionError, in one line, unless 0 <= count <= tokens and every language has tokens."""
    if not bool((tokens > 0).all()):
        places = (tokens <= 0).nonzero().flatten().tolist()
        raise SelectionError(f"{what}: no tokens for the languages at {places} (from 0); observe some, or leave it out")
    if bool((fired < 0).any()) or bool((fired > tokens).any()):
        raise SelectionError(f"{what}: counts below 0 or above the number of tokens; expected neither; observe again")


def monolinguality(mean: Float64[Tensor, "feature language"]) -> Float64[Tensor, "feature language"]:
    """ν = mean of a language minus the mean of the other languages' means; Σ_k ν = 0.

    ν_k = μ_k - 1/(K-1) Σ_{m≠k} μ_m, every other language weighing the same. In units of μ: a feature scaled by a has
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
    score: Float[Tensor, "feature language"], allowed: Bool[Tensor, "feature language"], count: int
) -> Bool[Tensor, "language feature"]:
    """For each language the `count` allowed features of highest score; ties go to the lowest feature."""
    mask = torch.zeros(score.T.shape, dtype=torch.bool)
    for k in range(score.shape[1]):
        places = allowed[:, k].nonzero().flatten()
        order = score[places, k].sort(descending=True, stable=True).indices[:count]
        mask[k, places[order]] = True
    return mask


def capped(
    mask: Bool[Tensor, "language feature"], score: Float64[Tensor, "language feature"], cap: int | None
) -> Bool[Tensor, "language feature"]:
    """The best `cap` features of each language by score, to the precision in which a set keeps it; None: all."""
    return mask if cap is None else top_mask(score.float().T, mask.T, cap)


def check_cap(cap: int | None) -> None:
    """Raise SelectionError for a cap that leaves nothing."""
    if cap is not None and cap < 1:
        raise SelectionError(f"cap {cap}; expected 1 or more, or None for all; correct it")
