"""How much of a set is about the script: does it stay active when the same text is written in Latin letters?"""

import math
from typing import NamedTuple

import torch
from einops import reduce

from babelscope.artifacts import NeuronSet, Observation
from babelscope.axes import Float64, Int64, Tensor
from babelscope.controls.intervals import percentile_interval
from babelscope.controls.matched_sets import layer_matched
from babelscope.controls.shards import NeuronSums, ShardSums, bootstrap_weights, neuron_shards
from babelscope.errors import LanguageError, MeasurementError
from babelscope.languages import Language


class ScriptShare(NamedTuple):
    """Share of one language's set that stays active on five versions of text, and how much of it is script."""

    native: float
    """Held-out text in its own script: the ceiling."""
    romanised: float
    """The same text in Latin letters."""
    shuffled_words: float
    """The same text with its words shuffled: script kept, syntax broken."""
    english: float
    """English text: the floor."""
    layer_matched: float
    """Random neurons of the same layers, on native text; mean over draws."""
    share: float
    """(native - romanised) / (native - english), clipped to [0, 1]; NaN where native is not above english."""
    low: float
    """Lower end of the share's 95 % interval over sentences."""
    high: float
    """Upper end."""


def script_share(
    sets: NeuronSet,
    *,
    threshold: float,
    native: Observation,
    romanised: Observation,
    shuffled: Observation,
    english: Observation,
    draws: int = 1000,
    random_draws: int = 19,
    seed: int,
) -> dict[Language, ScriptShare]:
    """Share of each set's response that goes with the script.

    Retention ρ = |{units of A_k with rate > T_b}| / |A_k| on each version of the same held-out sentences, with the sets
    and T_b fixed: romanised text is never a further language, because the selection depends on the languages.
    Script share = (ρ_native - ρ_romanised) / (ρ_native - ρ_english), clipped to [0, 1].

    threshold: T_b of the selection, `sets.parameters["threshold_bar"]`.
    native, romanised, shuffled: observations of the same sentences with the same shards, so that one bootstrap draw of
    shards serves all; many shards hold a sentence each, and sentences are then resampled. english: one with "en".
    Answered for the languages of `romanised`; for others, such as those in Latin script, the share is not applicable.
    The interval resamples shards and leaves out draws in which native is not above english.
    Romanised text is out of distribution: give its bits per byte beside.
    Raises LanguageError for a language that another version lacks, MeasurementError for fewer than 20 shards, for
    shards that differ, and for an MoE, whose thresholds are about routed tokens that are not kept by shard.
    """
    versions = {"native": native, "romanised": romanised, "shuffled": shuffled, "english": english}
    check_versions(sets, versions)
    shards = {name: neuron_shards(version, sets.at, parallel=True) for name, version in versions.items()}
    for version in shards.values():
        version.check()
    weight = bootstrap_weights(shards["native"].n_shards, 1, draws, seed)[:, 0]
    random = layer_matched(sets, draws=random_draws, seed=seed)
    native_rate = native[sets.at].active / native.token_counts.double()
    shares = {}
    for tag in romanised.languages:
        k = sets.index(tag)
        units = sets[tag].mask()[0].nonzero()
        retained = {
            name: Retained.measure(
                shards[name], versions[name].index("en" if name == "english" else tag), units, weight, threshold
            )
            for name in versions
        }
        above = native_rate[..., native.index(tag)] > threshold
        matched = reduce((random[:, k] & above).double(), "d l j -> ", "sum") / random[:, k].sum()
        shares[tag] = script_row(retained, float(matched))
    return shares


def check_versions(sets: NeuronSet, versions: dict[str, Observation]) -> None:
    """Raise unless the versions have the languages, shards and units that the comparison needs."""
    for tag in versions["romanised"].languages:
        sets.index(tag)
    for name, version in versions.items():
        required = ("en",) if name == "english" else versions["romanised"].languages
        missing = [tag for tag in required if tag not in version.languages]
        if missing:
            raise LanguageError(
                f"{name} text lacks {', '.join(missing)}; expected every language of the romanised text; observe it too"
            )
        sets.origin.check_same(version.origin, f"script share, {name} text")
        if version[sets.at].routed is not None:
            raise MeasurementError(
                f"{name} text of an MoE came, whose routed tokens are not kept by shard; expected a model without "
                "experts; leave the script share out"
            )
        if version.shards != versions["native"].shards:
            raise MeasurementError(
                f"{name} text has {version.shards} shards, native text {versions['native'].shards}; expected the same; "
                "observe the same sentences with the same shards"
            )


class Retained(NamedTuple):
    """Share of a set's units above the bar, on one version of the text."""

    whole: float
    """On all of it."""
    resampled: Float64[Tensor, " draw"]
    """On each bootstrap draw of shards."""

    @classmethod
    def measure(
        cls,
        shards: ShardSums[NeuronSums],
        column: int,
        units: Int64[Tensor, "unit two"],
        weight: Float64[Tensor, "draw shard"],
        threshold: float,
    ) -> "Retained":
        """Retention of `units`, given as (layer, unit) rows; NaN where there are none."""
        counts = shards.by_shard.active[:, column][:, units[:, 0], units[:, 1]]
        tokens = shards.by_shard.tokens[:, column]
        full_text = (counts.sum(dim=0) / tokens.sum() > threshold).double().mean()
        resampled = (weight @ counts) / (weight @ tokens)[:, None]
        return cls(float(full_text), (resampled > threshold).double().mean(dim=1))


def script_row(retained: dict[str, Retained], matched: float) -> ScriptShare:
    """One language's row out of its retentions."""
    native, romanised, english = (retained[name] for name in ("native", "romanised", "english"))
    resampled_share = clipped_share(native.resampled, romanised.resampled, english.resampled)
    retentions = (torch.tensor([version.whole], dtype=torch.float64) for version in (native, romanised, english))
    share = float(clipped_share(*retentions))
    low, high = percentile_interval(resampled_share) if not math.isnan(share) else (math.nan, math.nan)
    return ScriptShare(
        native.whole, romanised.whole, retained["shuffled"].whole, english.whole, matched, share, low, high
    )


def clipped_share(
    native: Float64[Tensor, " draw"], romanised: Float64[Tensor, " draw"], english: Float64[Tensor, " draw"]
) -> Float64[Tensor, " draw"]:
    """(native - romanised) / (native - english) in [0, 1]; NaN where native is not above english."""
    share = ((native - romanised) / (native - english)).clamp(0, 1)
    return torch.where(native > english, share, torch.nan)
