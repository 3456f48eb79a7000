"""In which layers the influence of passages is: those in the language of the query beside those in other languages."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from babelscope.axes import Float64, Int64
from babelscope.controls import percentile_interval, rank_p
from babelscope.controls.bootstrap_draws import mean_interval
from babelscope.languages import Language
from babelscope.probes.influence.text_influence import TextInfluence
from babelscope.probes.probe_evidence import SiteEvidence

SIDES = ("its own language", "other languages")
"""Of the passages, seen from a query."""
SIGN_FLIPS = 4999
RANDOM_TOPS = 99
"""Draws of as many passages as the most influential ones, whose mean stands beside them."""


class LayerProfile(NamedTuple):
    """Shares of the layers in the influence of the most influential passages of one side."""

    side: str
    queries: tuple[int, ...]
    """Those that have passages on this side."""
    languages: tuple[Language, ...]
    """Of these queries."""
    layers: tuple[int, ...]
    shares: Float64[np.ndarray, "query layer"]
    random: Float64[np.ndarray, "query layer"]
    """The same of passages of the side drawn at random."""

    @property
    def depth(self) -> Float64[np.ndarray, " query"]:
        """Mean layer, each weighed by its share."""
        return self.shares @ np.array(self.layers, dtype=float)

    def of(self, language: Language) -> np.ndarray:
        """Which queries are in a language."""
        return np.array([tag == language for tag in self.languages], dtype=bool)


def passage_shares(by_layer: Float64[np.ndarray, "layer passage"]) -> Float64[np.ndarray, "passage layer"]:
    """|part of a layer| / Σ |parts| of each passage; 0 for a passage without influence."""
    sizes = np.abs(by_layer)
    total = sizes.sum(axis=0)
    return np.divide(sizes, total, out=np.zeros_like(sizes), where=total > 0).T


def layer_profiles(influence: TextInfluence, top: int, seed: int) -> list[LayerProfile]:
    """One profile a side that some query has passages on; every passage among the first `top` counts alike."""
    tags = np.array([passage.language for passage in influence.passages])
    profiles, rng = list[LayerProfile](), np.random.default_rng(seed)
    for number, side in enumerate(SIDES):
        rows, shares, random = list[int](), list[np.ndarray](), list[np.ndarray]()
        for row, query in enumerate(influence.queries):
            places = np.flatnonzero((tags == query.language) == (number == 0))
            if not len(places):
                continue
            by_passage = passage_shares(influence.by_layer[:, row, places])
            order = np.argsort(-influence.scores["influence"][row, places], kind="stable")
            rows.append(row)
            shares.append(by_passage[order[:top]].mean(axis=0))
            random.append(random_tops(by_passage, top, rng))
        if rows:
            languages = tuple(influence.queries[row].language for row in rows)
            profiles.append(
                LayerProfile(side, tuple(rows), languages, influence.layers, np.array(shares), np.array(random))
            )
    return profiles


def random_tops(
    shares: Float64[np.ndarray, "passage layer"], top: int, rng: np.random.Generator
) -> Float64[np.ndarray, " layer"]:
    """Mean shares of as many passages drawn at random, over draws."""
    draws: Int64[np.ndarray, "draw place"] = rng.permuted(np.tile(np.arange(len(shares)), (RANDOM_TOPS, 1)), axis=1)
    return shares[draws[:, :top]].mean(axis=(0, 1))


def layer_rows(profiles: Sequence[LayerProfile], resamples: int, seed: int) -> Iterator[SiteEvidence]:
    """A row for each side and layer, and where there are both sides one of how deep each is."""
    rng = np.random.default_rng(seed)
    for profile in profiles:
        n = len(profile.queries)
        draws = rng.integers(n, size=(resamples, n))
        for place, layer in enumerate(profile.layers):
            shares = profile.shares[:, place]
            low, high = percentile_interval(shares[draws].mean(axis=1)) if n > 1 else (np.nan, np.nan)
            yield SiteEvidence(
                claim=f"share of a layer in the influence of passages in {profile.side}",
                language="",
                site=f"{layer}.mlp",
                control="passages of the same side drawn at random",
                n=n,
                estimate=float(shares.mean()),
                low=low,
                high=high,
                null=float(profile.random[:, place].mean()),
                draws=RANDOM_TOPS,
                seed=seed,
                note="n in queries; |part of the layer| over the sum of all, mean over the most influential passages",
            )
    if len(profiles) == len(SIDES):
        yield depth_row(profiles, resamples, seed)


def depth_row(profiles: Sequence[LayerProfile], resamples: int, seed: int) -> SiteEvidence:
    """How much deeper the influence of other languages is than that of the query's own, query by query, two-sided."""
    rows = [row for row in profiles[0].queries if row in profiles[1].queries]
    own_depth, other_depth = (profile.depth[[profile.queries.index(row) for row in rows]] for profile in profiles)
    deeper, rng = other_depth - own_depth, np.random.default_rng(seed)
    low, high = np.nan, np.nan
    if len(rows) > 1:
        low, high = mean_interval(deeper, resamples, rng)
    flipped = rng.choice([-1.0, 1.0], size=(SIGN_FLIPS, len(rows))) @ deeper / max(1, len(rows))
    return SiteEvidence(
        claim="the influence of other languages is deeper than that of the query's own, in layers",
        language="",
        control="the two sides of each query exchanged at random",
        n=len(rows),
        estimate=float(deeper.mean()) if rows else np.nan,
        low=low,
        high=high,
        p=rank_p(float(abs(deeper.mean())), np.abs(flipped)) if rows else np.nan,
        null=0.0,
        draws=SIGN_FLIPS,
        seed=seed,
        note=f"n in queries; mean layer {own_depth.mean():.2f} in its own language, {other_depth.mean():.2f} in others"
        "; two-sided",
    )


def profile_lines(profiles: Sequence[LayerProfile]) -> Iterator[dict[str, Any]]:
    """Shares by language of the queries, side and layer, beside those of random passages."""
    for profile in profiles:
        for language in dict.fromkeys(profile.languages):
            rows = profile.of(language)
            for place, layer in enumerate(profile.layers):
                yield {
                    "query": language,
                    "passages": profile.side,
                    "layer": layer,
                    "share": float(profile.shares[rows, place].mean()),
                    "random": float(profile.random[rows, place].mean()),
                }
