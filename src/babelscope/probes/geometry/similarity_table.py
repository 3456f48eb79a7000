"""Indices of similarity of languages by depth: SVCCA, PWCCA, neuron-wise correlation, and matching, with controls."""

from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import torch

from babelscope.artifacts.shown import shown_by
from babelscope.axes import Float64, Int64, Tensor
from babelscope.controls import Interval, percentile_interval, rank_p, wilson_interval
from babelscope.errors import MeasurementError
from babelscope.languages import Language
from babelscope.probes.geometry.alignment import CONTROL
from babelscope.probes.geometry.representation_similarity import (
    about_mean,
    canonical_means,
    nearest_in,
    nearest_rotated,
    orthonormal_bases,
    principal_scores,
)
from babelscope.probes.geometry.sentences import Pooling, Sentences
from babelscope.probes.probe_evidence import SiteEvidence
from babelscope.sites import Site

SimilarityIndex = Literal["svcca", "pwcca", "anc", "matching", "matching_centred", "matching_procrustes"]
DIRECTIONS = 20
"""Principal directions that the CCA of the table keeps, as in Del & Fishel's script."""
FEWEST = 4
"""Fewer sentences than this halve into nothing that can be correlated."""
TestedSimilarity = tuple[float, Interval, float, float]
"""Estimate, interval, and the mean and p of random pairings."""


class SimilarityCell(NamedTuple):
    """One index of one pair of languages at one depth."""

    measure: SimilarityIndex
    against: Language
    language: Language
    site: Site
    estimate: float
    interval: Interval
    """95 %: Wilson's for matching, half-samples of the sentences for the others."""
    null: float
    """Mean over random pairings of the same sentences."""
    p: float


@dataclass(frozen=True, eq=False)
class SimilarityTable:
    """Every index of one language with each other at every depth."""

    __repr__ = shown_by()

    cells: tuple[SimilarityCell, ...]
    sites: tuple[Site, ...]
    sentences: int
    directions: int
    draws: int
    seed: int

    def values(
        self, index: SimilarityIndex, part: Literal["estimate", "null", "p"] = "estimate"
    ) -> Float64[Tensor, "pair depth"]:
        """One index, pairs in order of first appearance."""
        numbers = [getattr(cell, part) for cell in self.cells if cell.measure == index]
        return torch.tensor(numbers, dtype=torch.float64).reshape(-1, len(self.sites))

    def rows(self) -> list[SiteEvidence]:
        """One row per index, pair and depth."""
        return [
            SiteEvidence(
                claim=f"similarity, {cell.measure}",
                language=cell.language,
                control=CONTROL,
                n=self.sentences,
                estimate=cell.estimate,
                low=cell.interval.low,
                high=cell.interval.high,
                p=cell.p,
                draws=self.draws,
                seed=self.seed,
                note=f"{self.directions} principal directions" if "cca" in cell.measure else "",
                site=str(cell.site),
                against=cell.against,
                null=cell.null,
            )
            for cell in self.cells
        ]


def similarity_indices(
    sentences: Sentences,
    *,
    against: str = "en",
    pooling: Pooling = "mean",
    directions: int = DIRECTIONS,
    draws: int = 99,
    resamples: int = 100,
    seed: int = 0,
) -> SimilarityTable:
    """Every index of each language with `against` at each depth, beside sentences paired at random.

    svcca, pwcca: `canonical_similarity` and `pwcca` of each language's first principal directions: those of whole
    vectors are 1 by force where sentences are few.
    anc: `neuron_correlation`. matching: `matching_accuracy` as it is, about each language's mean, and after a rotation.
    Raises LanguageError if `against` was not read, MeasurementError for fewer than four sentences; with fewer
    than four per direction, fewer directions are taken.
    Source: Del & Fishel 2022, arXiv:2212.01924.
    """
    n, base = len(sentences.ids), sentences.index(against)
    if n < FEWEST:
        raise MeasurementError(f"{n} parallel sentences came; expected at least {FEWEST}, better 200; give more text")
    few_enough = min(directions, n // FEWEST)
    generator = torch.Generator().manual_seed(seed)
    shuffles = torch.stack([torch.randperm(n, generator=generator) for _ in range(draws)])
    halves = torch.stack([torch.randperm(n, generator=generator)[: n // 2] for _ in range(resamples)])
    cells: list[SimilarityCell] = []
    for depth, site in enumerate(sentences.sites):
        vectors = sentences.at(depth, pooling)
        reduced = [principal_scores(x, few_enough) for x in vectors]
        centred = [about_mean(x) for x in vectors]
        for k, tag in enumerate(sentences.languages):
            if k == base:
                continue
            measured: dict[SimilarityIndex, TestedSimilarity] = {
                "svcca": _canonical(reduced[base], reduced[k], shuffles, halves, weighted=False),
                "pwcca": _canonical(reduced[base], reduced[k], shuffles, halves, weighted=True),
                "anc": _neurons(vectors[base], vectors[k], shuffles, halves),
                "matching": _matched(nearest_in(vectors[base], vectors[k]), shuffles),
                "matching_centred": _matched(nearest_in(centred[base], centred[k]), shuffles),
                "matching_procrustes": _matched(nearest_rotated(vectors[base], vectors[k]), shuffles),
            }
            pair = sentences.languages[base], tag
            cells += [SimilarityCell(name, *pair, site, *numbers) for name, numbers in measured.items()]
    order = {name: at for at, name in enumerate(get_args(SimilarityIndex))}
    cells.sort(key=lambda cell: (order[cell.measure], sentences.languages.index(cell.language)))
    return SimilarityTable(tuple(cells), sentences.sites, n, few_enough, draws, seed)


def _canonical(
    x: Tensor,
    y: Tensor,
    shuffles: Int64[Tensor, "draw sentence"],
    halves: Int64[Tensor, "resample half"],
    *,
    weighted: bool,
) -> TestedSimilarity:
    (first, second), centred = orthonormal_bases(x, y), about_mean(x)
    loadings = first.T @ centred if weighted else None
    null = canonical_means(first.T @ second[shuffles], loadings)
    half_sides = [side[halves] - side[halves].mean(dim=1, keepdim=True) for side in (x, y)]
    bases = [torch.linalg.qr(side).Q for side in half_sides]
    half_loadings = bases[0].transpose(1, 2) @ half_sides[0] if weighted else None
    parts = canonical_means(bases[0].transpose(1, 2) @ bases[1], half_loadings)
    return _measured(float(canonical_means(first.T @ second, loadings)), null, parts)


def _neurons(
    x: Tensor, y: Tensor, shuffles: Int64[Tensor, "draw sentence"], halves: Int64[Tensor, "resample half"]
) -> TestedSimilarity:
    """Random pairings are sums of cells of one matrix; half-samples come from sums of products."""
    n, hidden = x.shape
    unit = [about_mean(side) / about_mean(side).norm(dim=0).clamp(min=torch.finfo(x.dtype).tiny) for side in (x, y)]
    pairs = unit[0] @ unit[1].T / hidden
    null = pairs[torch.arange(n), shuffles].sum(dim=1)
    member = torch.zeros(len(halves), n, dtype=x.dtype).scatter_(1, halves, 1.0)
    size = halves.shape[1]
    sums = [member @ side for side in unit]
    squares = [
        (member @ side.square() - total.square() / size).clamp(min=0) for side, total in zip(unit, sums, strict=True)
    ]
    product = member @ (unit[0] * unit[1]) - sums[0] * sums[1] / size
    scale = (squares[0] * squares[1]).sqrt()
    parts = (product / scale.where(scale > 0, 1.0)).mean(dim=1)
    return _measured(float(pairs.diagonal().sum()), null, parts)


def _measured(estimate: float, null: Float64[Tensor, " draw"], parts: Float64[Tensor, " resample"]) -> TestedSimilarity:
    # The spread of half-samples about their own mean is that of the whole (delete-half jackknife); their bias is not.
    low, high = percentile_interval(parts - parts.mean())
    interval = Interval(estimate + min(low, 0.0), min(1.0, estimate + max(high, 0.0)))
    return estimate, interval, float(null.mean()), rank_p(estimate, null)


def _matched(nearest: Int64[Tensor, " sentence"], shuffles: Int64[Tensor, "draw sentence"]) -> TestedSimilarity:
    hits, n = int((nearest == torch.arange(len(nearest))).sum()), len(nearest)
    null = (nearest == shuffles).double().mean(dim=1)
    return hits / n, wilson_interval(hits, n), float(null.mean()), rank_p(hits / n, null)
