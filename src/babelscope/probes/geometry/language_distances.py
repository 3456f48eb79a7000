"""Distances between languages that similarity may follow: genetic, geographic, lexical, typological."""

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple, get_args

import numpy as np
import torch
from anyascii import anyascii
from scipy.stats import rankdata

from babelscope.axes import Float64
from babelscope.controls import rank_p
from babelscope.errors import LanguageError, MeasurementError
from babelscope.languages import Language
from babelscope.languages.uriel import FeatureKind, Languoid, languoid_of, uriel_features, uriel_there
from babelscope.probes.geometry.trees import SimilarityTree
from babelscope.probes.lens.word_lists import Words
from babelscope.probes.probe_evidence import SiteEvidence

EARTH_KM = 6371.0
"""Mean radius."""


class DistanceTest(NamedTuple):
    """A similarity matrix against one table of distances, at one depth."""

    correlation: float
    """Spearman's, over pairs of languages, of similarity with nearness."""
    p: float
    """Rank of it when languages change places in the table (Mantel's test), one-sided."""
    partial: float
    """The same with what a shared script explains taken from both."""
    partial_p: float


def distance_tables(
    languages: Sequence[Language], words: Words | None = None
) -> dict[str, Float64[np.ndarray, "language language"]]:
    """Tables of distances, as many as can be had: lexical where `words` has every language, the rest from URIEL+.

    genetic: 1 - cosine of the groups of Glottolog's tree that two languages are in. geographic: great circle, km.
    syntax, phonology, inventory: 1 - cosine of URIEL's features that both have.
    A table that lacks a language is left out. Raises LanguageError for fewer than four languages.
    """
    if len(languages) < 4:
        raise LanguageError(f"{len(languages)} languages came; expected at least 4 to compare distances; add languages")
    tables: dict[str, np.ndarray] = {}
    if words is not None and all(any(tag in by_tag for by_tag in words.values()) for tag in languages):
        tables["lexical"] = table_of(languages, lambda a, b: lexical_distance(words, a, b))
    if uriel_there():
        languoids = {tag: languoid_of(tag) for tag in languages}
        entries = {tag: languoid for tag, languoid in languoids.items() if languoid is not None}
        if len(entries) == len(languages):
            tables["genetic"] = table_of(
                languages, lambda a, b: genetic_distance(entries[a].lineage, entries[b].lineage)
            )
            tables["geographic"] = table_of(languages, lambda a, b: great_circle_km(entries[a], entries[b]))
        for kind in get_args(FeatureKind):
            features = {tag: uriel_features(tag, kind) for tag in languages}
            tables[kind] = table_of(languages, lambda a, b, of=features: feature_distance(of[a], of[b]))
    return {name: table for name, table in tables.items() if np.isfinite(table).all() and np.ptp(table) > 0}


def table_of(
    languages: Sequence[Language], distance: Callable[[Language, Language], float]
) -> Float64[np.ndarray, "language language"]:
    """A symmetric table of a function of two languages, 0 on its diagonal."""
    table = np.zeros((len(languages), len(languages)))
    for (i, first), (j, second) in combinations(enumerate(languages), 2):
        table[i, j] = table[j, i] = distance(first, second)
    return table


def genetic_distance(first: Sequence[str], second: Sequence[str]) -> float:
    """1 - shared groups / √(groups of one · groups of the other); 1 where one is an isolate."""
    if not first or not second:
        return 1.0
    return 1 - len(set(first) & set(second)) / float(np.sqrt(len(first) * len(second)))


def great_circle_km(first: Languoid, second: Languoid) -> float:
    """Haversine's distance between two places, in kilometres."""
    lat1, lon1, lat2, lon2 = np.radians([first.latitude, first.longitude, second.latitude, second.longitude])
    chord = np.sin((lat2 - lat1) / 2) ** 2 + np.cos(lat1) * np.cos(lat2) * np.sin((lon2 - lon1) / 2) ** 2
    return float(2 * EARTH_KM * np.arcsin(np.sqrt(min(1.0, chord))))


def feature_distance(first: np.ndarray | None, second: np.ndarray | None) -> float:
    """1 - cosine over features that both languages have; NaN where they share none."""
    if first is None or second is None:
        return float("nan")
    both = np.isfinite(first) & np.isfinite(second)
    x, y = first[both], second[both]
    lengths = np.linalg.norm(x) * np.linalg.norm(y)
    return float(1 - x @ y / lengths) if lengths > 0 else float("nan")


def lexical_distance(words: Words, first: Language, second: Language) -> float:
    """Mean over concepts of the edit distance of two words in Latin letters (anyascii), by the longer one's length."""
    shares = []
    for by_tag in words.values():
        terms: Mapping = by_tag
        if first in terms and second in terms:
            a, b = (anyascii(terms[tag]).casefold() for tag in (first, second))
            shares.append(edit_distance(a, b) / max(len(a), len(b), 1))
    return float(np.mean(shares)) if shares else float("nan")


def edit_distance(first: str, second: str) -> int:
    """Levenshtein's: the fewest letters to insert, delete or replace."""
    row = list(range(len(second) + 1))
    for i, letter in enumerate(first, start=1):
        above, row[0] = row[0], i
        for j, other_letter in enumerate(second, start=1):
            above, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, above + (letter != other_letter))
    return row[-1]


def distance_test(
    similarity: Float64[np.ndarray, "language language"],
    distance: Float64[np.ndarray, "language language"],
    rival: Float64[np.ndarray, "language language"],
    *,
    draws: int,
    seed: int,
) -> DistanceTest:
    """Mantel's test of similarity with nearness, and the partial one given a rival table (Smouse et al. 1986).

    Ranks throughout; languages change places in the table of distances. Partial: residuals of both from the rival's
    ranks, taken anew for each change of places. Raises MeasurementError where all distances are the same.
    """
    upper = np.triu_indices(len(similarity), 1)
    if np.ptp(distance[upper]) == 0:
        raise MeasurementError("all pairs of languages are equally far; expected two distances; add other languages")
    rank_table = np.zeros(distance.shape)
    rank_table[upper] = rankdata(-distance[upper])
    rank_table += rank_table.T
    alike, explained = rankdata(similarity[upper]), rankdata(rival[upper])

    def both(table: np.ndarray) -> tuple[float, float]:
        near = table[upper]
        return correlation(alike, near), correlation(residual(alike, explained), residual(near, explained))

    whole, partial = both(rank_table)
    generator = torch.Generator().manual_seed(seed)
    null = []
    for _ in range(draws):
        order = torch.randperm(len(distance), generator=generator).numpy()
        null.append(both(rank_table[np.ix_(order, order)]))
    whole_null, partial_null = np.array(null).T
    return DistanceTest(whole, rank_p(whole, whole_null), partial, rank_p(partial, partial_null))


def correlation(x: Float64[np.ndarray, " pair"], y: Float64[np.ndarray, " pair"]) -> float:
    """Pearson's; 0 where one is constant."""
    x, y = x - x.mean(), y - y.mean()
    lengths = np.linalg.norm(x) * np.linalg.norm(y)
    return float(x @ y / lengths) if lengths > 1e-9 else 0.0


def residual(x: Float64[np.ndarray, " pair"], z: Float64[np.ndarray, " pair"]) -> Float64[np.ndarray, " pair"]:
    """What a line through z leaves of x."""
    z = z - z.mean()
    length = z @ z
    return x - x.mean() - (z * (z @ x / length) if length > 0 else 0.0)


def distance_rows(
    tree: SimilarityTree, words: Words | None = None, *, draws: int = 999, seed: int = 0
) -> list[SiteEvidence]:
    """One row per depth and table: similarity against nearness, the partial correlation given script in its note."""
    scripts = np.array([tag.script for tag in tree.languages])
    same_script = (scripts[:, None] == scripts[None]).astype(np.float64)
    rows = []
    for name, table in distance_tables(tree.languages, words).items():
        for site, similarity in zip(tree.sites, tree.similarity, strict=True):
            test = distance_test(similarity.double().numpy(), table, same_script, draws=draws, seed=seed)
            rows.append(
                SiteEvidence(
                    claim=f"similarity follows {name} nearness",
                    language="",
                    control="languages change places in the table",
                    n=len(tree.languages) * (len(tree.languages) - 1) // 2,
                    estimate=test.correlation,
                    p=test.p,
                    draws=draws,
                    seed=seed,
                    site=str(site),
                    null=0.0,
                    note=f"given script {test.partial:.3f}, p {test.partial_p:.4f}",
                )
            )
    return rows
