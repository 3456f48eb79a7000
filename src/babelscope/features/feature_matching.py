"""Random features to hold against a FeatureSet: as frequent, as long in the decoder, and as loud."""

import logging
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch

from babelscope.artifacts.feature_observation import FeatureObservation
from babelscope.artifacts.feature_set import FeatureSet
from babelscope.axes import Float64, Int64, Tensor
from babelscope.controls.matched_sets import LARGEST_MISS, NEIGHBOURS
from babelscope.errors import ArtifactError, SelectionError
from babelscope.languages import Language

log = logging.getLogger(__name__)
QUANTITIES = ("rate", "norm", "energy")


class MatchedFeatures(NamedTuple):
    """Random sets of the size of the real ones."""

    features: dict[Language, Int64[Tensor, "draw size"]]
    """Features of each draw, none of any language's set, each once per draw."""
    achieved: dict[Language, dict[str, float]]
    """Mean over draws of Σ over the control's features of rate, decoder norm and energy, over that of the set."""


class LoudFeatures(NamedTuple):
    """Random sets that write as much as the real ones, or all that there is."""

    features: dict[Language, list[Int64[Tensor, " _"]]]
    """Features of each draw; draws differ in size."""
    achieved: dict[Language, dict[str, float]]
    """Means over draws: "power", Σ energy² over that of the set, and "times", how many features for one of the set."""


def feature_energy(observed: FeatureObservation) -> Float64[Tensor, "feature language"]:
    """Size of what each feature writes into the residual stream: sqrt(E_k[f²]) · |W_dec row|, over all tokens of k."""
    return (observed.sumsq / observed.tokens).sqrt() * observed.decoder_norm.double()[:, None]


def matched_features(
    observed: FeatureObservation, sets: FeatureSet, *, barred: FeatureSet | None = None, draws: int = 19, seed: int
) -> MatchedFeatures:
    """For each feature of a language, one drawn among the ten most like it that no language has.

    barred: further features that are no control: where `sets` were cut to the best few, the sets before that, or the
    features most like a language's best ones are its next best, and the control asks how much better the best are.
    Likeness: Euclidean distance between (ln rate, ln decoder norm, ln energy) in the language, each divided by its
    standard deviation over the features that fired there; rate is the share of the language's tokens. Features of a
    set are served in random order, without replacement.  19 draws are the fewest whose rank p can reach 0.05.
    The achieved ratios are given, and logged where one is more than 10 % off: the frequent features of a language may
    have no like outside the sets.
    Raises SelectionError where too few other features fired in a language, ArtifactError for another autoencoder.
    """
    generator, controls, achieved = np.random.default_rng(seed), {}, {}
    for tag, like, members, pool in likenesses(observed, sets, barred):
        draws_of_language = draw_like(like, members, pool, draws, generator)
        controls[tag] = draws_of_language
        ratio = like[draws_of_language].sum(dim=1).mean(dim=0) / like[members].sum(dim=0)
        achieved[tag] = dict(zip(QUANTITIES, ratio.tolist(), strict=True))
    report_feature_misses(achieved)
    return MatchedFeatures(controls, achieved)


def loud_features(
    observed: FeatureObservation, sets: FeatureSet, *, barred: FeatureSet | None = None, draws: int = 19, seed: int
) -> LoudFeatures:
    """As `matched_features`, but each draw goes on until Σ energy² is that of the language's set, or none is left.

    The harsher control where a language's features are louder than any other feature: as many as it takes to write as
    much.  Σ energy² = E_k Σ |f · W_dec row|², the square of what the features add to the stream, each taken alone.
    Raises as `matched_features`.
    """
    generator, controls, achieved = np.random.default_rng(seed), {}, {}
    for tag, like, members, pool in likenesses(observed, sets, barred):
        distance, power = distances(like, members, pool), like[pool, 2].square().numpy()
        target_power = float(like[members, 2].square().sum())

        def enough(
            row: list[int], least: int = len(members), target_power: float = target_power, power: np.ndarray = power
        ) -> bool:
            return len(row) >= least and float(power[row].sum()) >= target_power

        rows = [serve(distance, generator, enough) for _ in range(draws)]
        controls[tag] = [pool[row] for row in rows]
        achieved[tag] = {
            "power": float(np.mean([power[row].sum() for row in rows])) / target_power,
            "times": float(np.mean([len(row) for row in rows])) / len(members),
        }
    return LoudFeatures(controls, achieved)


def loudest_features(
    observed: FeatureObservation, sets: FeatureSet, *, barred: FeatureSet | None = None
) -> MatchedFeatures:
    """As many as each language's set has, those that write most into its text of all that no language has.

    The most that as many other features can take out, for where none as loud as the set are left to be matched.
    One set per language, so a rank p means nothing here. Raises as `matched_features`.
    """
    controls, achieved = {}, {}
    for tag, like, members, pool in likenesses(observed, sets, barred):
        chosen = pool[like[pool, 2].argsort(descending=True, stable=True)[: len(members)]]
        ratio = like[chosen].sum(dim=0) / like[members].sum(dim=0)
        controls[tag], achieved[tag] = chosen[None], dict(zip(QUANTITIES, ratio.tolist(), strict=True))
    return MatchedFeatures(controls, achieved)


def likenesses(
    observed: FeatureObservation, sets: FeatureSet, barred: FeatureSet | None
) -> Iterator[tuple[Language, Tensor, Tensor, Tensor]]:
    """For each language: rate, norm and energy of every feature in it, the language's features, and those free."""
    if observed.sae_hash != sets.sae_hash:
        raise ArtifactError(
            f"sets of SAE {sets.sae_id!r} ({sets.sae_hash}) came with an observation of {observed.sae_id!r} "
            f"({observed.sae_hash}); expected one autoencoder; observe with it"
        )
    unavailable = sets.mask().any(dim=0)
    unavailable = unavailable if barred is None else unavailable | barred.mask().any(dim=0)
    energy, rate = feature_energy(observed), observed.fired.double() / observed.tokens
    for tag in sets.languages:
        k = observed.counts.index(tag)
        like = torch.stack([rate[:, k], observed.decoder_norm.double(), energy[:, k]], dim=1)
        members, pool = sets.features(tag), ((observed.fired[:, k] > 0) & ~unavailable).nonzero().flatten()
        if len(pool) < max(NEIGHBOURS, len(members)):
            raise SelectionError(
                f"{tag}: {len(pool)} features fired that no language has; expected at least "
                f"{max(NEIGHBOURS, len(members))} to draw a control from; select fewer, or observe more text"
            )
        yield tag, like, members, pool


def draw_like(
    like: Float64[Tensor, "feature quantity"],
    members: Int64[Tensor, " size"],
    pool: Int64[Tensor, " free"],
    draws: int,
    generator: np.random.Generator,
) -> Int64[Tensor, "draw size"]:
    """One set per draw: for each member, one of the ten nearest features of the pool that are still free."""
    distance, size = distances(like, members, pool), len(members)
    rows = [serve(distance, generator, lambda row: len(row) == size) for _ in range(draws)]
    return pool[torch.tensor(rows, dtype=torch.int64).reshape(draws, size)]


def distances(like: Float64[Tensor, "feature quantity"], members: Tensor, pool: Tensor) -> np.ndarray:
    """[member, pool]: Euclidean distance between logarithms, each in its standard deviation over both."""
    place = like.clamp(min=torch.finfo(torch.float64).tiny).log()
    place = place / place[torch.cat([pool, members])].std(dim=0, correction=0).clamp(min=1e-12)
    return torch.cdist(place[members], place[pool]).numpy()


def serve(distance: np.ndarray, generator: np.random.Generator, enough: Callable[[list[int]], bool]) -> list[int]:
    """Places in the pool: own features are served in rounds of random order until that is enough or none is free."""
    free, row = np.ones(distance.shape[1], dtype=bool), []
    while not enough(row) and free.any():
        for number in generator.permutation(len(distance)):
            near = np.flatnonzero(free)
            if enough(row) or not len(near):
                break
            near = near[np.argsort(distance[number, near], kind="stable")[:NEIGHBOURS]]
            chosen = int(generator.choice(near))
            free[chosen] = False
            row.append(chosen)
    return row


def report_feature_misses(achieved: dict[Language, dict[str, float]]) -> None:
    """Log the languages whose controls miss a quantity by more than 10 % on average."""
    for name in QUANTITIES:
        off = {tag: row[name] for tag, row in achieved.items() if abs(row[name] - 1) > LARGEST_MISS}
        if off:
            misses = ", ".join(f"{tag} {value:.2f}" for tag, value in off.items())
            log.warning("matched features are more than 10 %% off in %s (achieved over wanted): %s", name, misses)
