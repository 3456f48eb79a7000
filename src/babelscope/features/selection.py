"""FeatureObservation → FeatureSet, by each of the rules."""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from einops import rearrange, repeat

from babelscope.artifacts.feature_observation import FeatureObservation
from babelscope.artifacts.feature_set import FeatureSet
from babelscope.axes import Bool, Float64, Tensor
from babelscope.errors import SelectionError
from babelscope.features.scores import LangfirChoice, check_counts, langfir_mask, monolinguality, top_mask
from babelscope.languages import Language
from babelscope.neurons import lape_mask

Of = Literal["value", "rate"]


def langfir(observed: FeatureObservation, *, tau: float | int, ratio: float | int, min_count: int) -> LangfirChoice:
    """`langfir_mask` of an observation."""
    noise = observed.random
    return langfir_mask(
        observed.fired,
        observed.tokens,
        observed.present,
        observed.documents,
        noise.fired,
        noise.tokens,
        tau=tau,
        ratio=ratio,
        min_count=min_count,
    )


def select_langfir(
    observed: FeatureObservation,
    *,
    tau: float | int = 0.5,
    ratio: float | int = 3.0,
    min_count: int = 50,
    cap: int | None = 10,
) -> FeatureSet:
    """Features consistently active on a language's text and rarely on random tokens; the rule is in `langfir_mask`.

    cap: the best so many by rate ratio, half a token added to both counts so that it is finite; None keeps all.  The
    sizes before it are in `parameters["uncapped"]`, those before the random tokens in `parameters["consistent"]`.
    The score is ln of the smoothed rate ratio; higher is better.
    """
    choice = langfir(observed, tau=tau, ratio=ratio, min_count=min_count)
    found = {
        "tau": tau,
        "ratio": ratio if ratio != float("inf") else "inf",
        "min_count": min_count,
        "cap": cap,
        "uncapped": by_language(observed, choice.mask),
        "consistent": by_language(observed, choice.consistent),
    }
    return pack(observed, choice.mask, choice.log_ratio, "langfir", found, cap)


def score_monolinguality(observed: FeatureObservation, *, of: Of = "value") -> Float64[Tensor, "feature language"]:
    """ν of every feature in every language; the rule is in `monolinguality`.

    of: "value", the mean over tokens of the feature's value, tokens where it is 0 among them; or "rate", the share of
    tokens on which it fires, which does not depend on the scale of the feature.
    """
    check_counts(observed.fired, observed.tokens, "text")
    sums = observed.sum if of == "value" else observed.fired.double()
    return monolinguality(sums / observed.tokens)


def select_monolingual(
    observed: FeatureObservation, *, count: int = 10, of: Of = "value", share: float | int = 0.5, min_count: int = 50
) -> FeatureSet:
    """The `count` features of highest ν in each language.

    A feature is kept only where ν > 0, it fired on `min_count` tokens of the language, and the language has at least
    `share` of the sum over languages of its means, or highest ν would also pick what many languages share.
    The score is ν; higher is better.  Source: Deng et al. 2025, arXiv:2505.05111, without these three conditions.
    """
    if count < 1 or not 0 <= share <= 1 or min_count < 0:
        raise SelectionError(f"count {count}, share {share}, min_count {min_count}; expected >= 1, 0 to 1, >= 0")
    nu = score_monolinguality(observed, of=of)
    mean = (observed.sum if of == "value" else observed.fired.double()) / observed.tokens
    part = mean / mean.sum(dim=1, keepdim=True)
    allowed = (nu > 0) & (part >= share) & (observed.fired >= max(1, min_count))
    given = {"count": count, "of": of, "share": share, "min_count": min_count}
    found = {**given, "uncapped": by_language(observed, allowed.T)}
    return pack(observed, top_mask(nu, allowed, count), rearrange(nu, "j k -> k j"), "monolinguality", found)


def select_lape_features(
    observed: FeatureObservation,
    *,
    top_rate: float = 0.01,
    filter_rate: float = 0.95,
    bar_rate: float = 0.95,
    min_count: int = 50,
    cap: int | None = None,
) -> FeatureSet:
    """Features by activation probability entropy: the rule for neurons, on shares of tokens on which a feature fires.

    Thresholds are quantiles of all rates; features fire far less often than neurons, so a quantile may be 0 where most
    never fire, and eligible then means fires at all.  The score is the negative entropy in nats; higher is better.
    Source: Tang et al. 2024, arXiv:2402.16438; the rule is in `babelscope.neurons.lape_mask`.
    """
    given = {"top_rate": top_rate, "filter_rate": filter_rate, "bar_rate": bar_rate, "min_count": min_count}
    active = rearrange(observed.fired, "j k -> 1 j k")
    choice = lape_mask(
        active,
        observed.tokens,
        top_rate=top_rate,
        filter_rate=filter_rate,
        bar_rate=bar_rate,
        min_count=min_count,
    )
    mask = rearrange(choice.mask, "k 1 j -> k j")
    score = repeat(-choice.entropy[0], "j -> k j", k=len(observed.languages))
    found = {**given, "threshold_filter": choice.threshold_filter, "threshold_bar": choice.threshold_bar}
    return pack(observed, mask, score, "lape", {**found, "cap": cap, "uncapped": by_language(observed, mask)}, cap)


def by_language(observed: FeatureObservation, mask: Bool[Tensor, "language feature"]) -> dict[Language, int]:
    """Features of each language in a mask."""
    return dict(zip(observed.languages, mask.sum(dim=1).tolist(), strict=True))


def pack(
    observed: FeatureObservation,
    mask: Bool[Tensor, "language feature"],
    score: Float64[Tensor, "language feature"],
    method: str,
    parameters: Mapping[str, Any],
    cap: int | None = None,
) -> FeatureSet:
    """The FeatureSet of a mask; tokens, documents and how random tokens were drawn are added to the parameters."""
    if cap is not None and cap < 1:
        raise SelectionError(f"cap {cap}; expected 1 or more, or None for all; correct it")
    shared = {
        "tokens": observed.counts.tokens,
        "documents": dict(zip(observed.languages, observed.documents.tolist(), strict=True)),
        "random": observed.counts.settings.get("random", {}),
    }
    return FeatureSet.from_mask(
        mask,
        torch.where(mask, score, torch.zeros_like(score)),
        cap=cap,
        origin=observed.counts.origin,
        languages=observed.languages,
        site=observed.site,
        sae_id=observed.sae_id,
        sae_hash=observed.sae_hash,
        method=method,
        parameters={**parameters, **shared},
    )


SELECTORS: dict[str, Callable[..., FeatureSet]] = {
    "langfir": select_langfir,
    "monolinguality": select_monolingual,
    "lape": select_lape_features,
}
"""FeatureObservation → FeatureSet, by the name that `FeatureSet.method` carries."""
