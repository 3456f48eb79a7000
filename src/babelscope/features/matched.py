"""Random features to hold against a FeatureSet: as frequent, as long in the decoder, and as loud."""

import logging
from typing import NamedTuple

import numpy as np
import torch

from babelscope.artifacts.feature_observation import FeatureObservation
from babelscope.artifacts.feature_set import FeatureSet
from babelscope.axes import Float64, Int64, Tensor
from babelscope.controls.matched import LARGEST_MISS, NEIGHBOURS
from babelscope.errors import ArtifactError, SelectionError
from babelscope.languages import Language

log = logging.getLogger(__name__)
QUANTITIES = ("rate", "norm", "energy")


class MatchedFeatures(NamedTuple):
    """Random sets of the size of the real ones."""

    features: dict[Language, Int64[Tensor, "draw size"]]
    """Features of each draw, none of any language's set, each once a draw."""
    achieved: dict[Language, dict[str, float]]
    """Mean over draws of Σ over the control's features of rate, decoder norm and energy, over that of the set."""


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
    standard deviation over the features that fired there; rate is the share of the language's tokens.  Features of a
    set are served in random order, without replacement.  19 draws are the fewest whose rank p can reach 0.05.
    The achieved ratios are given, and logged where one is more than 10 % off: the frequent features of a language may
    have no like outside the sets.
    Raises SelectionError where too few other features fired in a language, ArtifactError for another autoencoder.
    """
    if observed.sae_hash != sets.sae_hash:
        raise ArtifactError(
            f"sets of SAE {sets.sae_id!r} ({sets.sae_hash}) came with an observation of {observed.sae_id!r} "
            f"({observed.sae_hash}); expected one autoencoder; observe with it"
        )
    generator, taken = np.random.default_rng(seed), sets.mask().any(dim=0)
    taken = taken if barred is None else taken | barred.mask().any(dim=0)
    energy, rate = feature_energy(observed), observed.fired.double() / observed.tokens
    found, achieved = {}, {}
    for tag in sets.languages:
        k = observed.counts.index(tag)
        like = torch.stack([rate[:, k], observed.decoder_norm.double(), energy[:, k]], dim=1)
        own, pool = sets.features(tag), ((observed.fired[:, k] > 0) & ~taken).nonzero().flatten()
        if len(pool) < max(NEIGHBOURS, len(own)):
            raise SelectionError(
                f"{tag}: {len(pool)} features fired that no language has; expected at least "
                f"{max(NEIGHBOURS, len(own))} to draw a control from; select fewer, or observe more text"
            )
        picked = draw_like(like, own, pool, draws, generator)
        found[tag] = picked
        ratio = like[picked].sum(dim=1).mean(dim=0) / like[own].sum(dim=0)
        achieved[tag] = dict(zip(QUANTITIES, ratio.tolist(), strict=True))
    report_misses(achieved)
    return MatchedFeatures(found, achieved)


def draw_like(
    like: Float64[Tensor, "feature quantity"],
    own: Int64[Tensor, " size"],
    pool: Int64[Tensor, " free"],
    draws: int,
    generator: np.random.Generator,
) -> Int64[Tensor, "draw size"]:
    """One set a draw, each of its features among the ten of the pool nearest to one of the own that are still free."""
    place = like.clamp(min=torch.finfo(torch.float64).tiny).log()
    place = place / place[torch.cat([pool, own])].std(dim=0, correction=0).clamp(min=1e-12)
    distance = torch.cdist(place[own], place[pool]).numpy()
    rows = np.empty((draws, len(own)), dtype=np.int64)
    for draw in range(draws):
        free = np.ones(len(pool), dtype=bool)
        for number in generator.permutation(len(own)):
            near = np.flatnonzero(free)
            near = near[np.argsort(distance[number, near], kind="stable")[:NEIGHBOURS]]
            chosen = int(generator.choice(near))
            free[chosen] = False
            rows[draw, number] = int(pool[chosen])
    return torch.from_numpy(rows)


def report_misses(achieved: dict[Language, dict[str, float]]) -> None:
    """Log the languages whose controls miss a quantity by more than 10 % on average."""
    for name in QUANTITIES:
        off = {tag: row[name] for tag, row in achieved.items() if abs(row[name] - 1) > LARGEST_MISS}
        if off:
            listed = ", ".join(f"{tag} {value:.2f}" for tag, value in off.items())
            log.warning("matched features are more than 10 %% off in %s (achieved over wanted): %s", name, listed)
