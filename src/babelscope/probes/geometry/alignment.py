"""How alike a model holds the same sentence in two languages, by depth: MEXA, linear CKA and cosine."""

from dataclasses import dataclass
from itertools import combinations
from typing import Literal, NamedTuple

import torch

from babelscope.artifacts.shown import shown_by
from babelscope.axes import Bool, Float64, Int64, Tensor
from babelscope.controls import Interval, percentile_interval, rank_p, wilson_interval
from babelscope.controls.bootstrap_draws import draw_items
from babelscope.errors import MeasurementError
from babelscope.languages import Language
from babelscope.probes.geometry.sentences import Pooling, Sentences
from babelscope.probes.probe_evidence import SiteEvidence
from babelscope.sites import Site

AlignmentMeasure = Literal["mexa", "mexa_last", "cka", "cosine"]
POOLING: dict[AlignmentMeasure, Pooling] = {"mexa": "weighted", "mexa_last": "last", "cka": "mean", "cosine": "mean"}
"""Which sentence vectors each measure compares."""
CONTROL = "sentences paired at random"
DECIMALS = 12
"""Cosines equal to so many decimals are ties: a product of matrices may end a repeated row in other last bits."""
DrawnSimilarity = tuple[float, Interval, Tensor]
"""Estimate, interval, and the values of random pairings."""


class Aligned(NamedTuple):
    """One measure of one pair of languages at one depth."""

    measure: AlignmentMeasure
    one: Language
    other: Language
    site: Site
    estimate: float
    interval: Interval
    """95 % over sentences."""
    null: float
    """Mean over random pairings of the same sentences: chance for these very vectors."""
    p: float
    """Rank of the estimate among the random pairings."""


@dataclass(frozen=True, eq=False)
class Alignment:
    """Every measure of every pair at every depth."""

    __repr__ = shown_by()

    cells: tuple[Aligned, ...]
    languages: tuple[Language, ...]
    sites: tuple[Site, ...]
    sentences: int
    draws: int
    seed: int

    def values(
        self, measure: AlignmentMeasure, field: Literal["estimate", "null", "p"] = "estimate"
    ) -> Float64[Tensor, "pair depth"]:
        """One measure, pairs in order of first appearance."""
        selected = [getattr(cell, field) for cell in self.cells if cell.measure == measure]
        return torch.tensor(selected, dtype=torch.float64).reshape(-1, len(self.sites))

    @property
    def pairs(self) -> tuple[tuple[Language, Language], ...]:
        """Order of the pair axis."""
        return tuple(dict.fromkeys((cell.one, cell.other) for cell in self.cells))

    def rows(self) -> list[SiteEvidence]:
        """One row per measure, pair and depth."""
        return [
            SiteEvidence(
                claim=f"alignment, {cell.measure}",
                language=cell.other,
                control=CONTROL,
                n=self.sentences,
                estimate=cell.estimate,
                low=cell.interval.low,
                high=cell.interval.high,
                p=cell.p,
                draws=self.draws,
                seed=self.seed,
                note=f"{POOLING[cell.measure]} of tokens",
                site=str(cell.site),
                against=cell.one,
                null=cell.null,
            )
            for cell in self.cells
        ]


def language_alignment(
    sentences: Sentences, *, against: str | None = "en", draws: int = 99, resamples: int = 200, seed: int = 0
) -> Alignment:
    """MEXA, linear CKA and mean cosine of each pair of languages at each depth, beside sentences paired at random.

    against: the language paired with every other; None pairs all.
    Intervals: Wilson's for MEXA, whose successes are counted among all sentences; bootstrap over sentences for the
    cosine; for CKA half-samples without replacement, since a sentence drawn twice would be alike to itself.
    Raises LanguageError if `against` was not read, MeasurementError for fewer than four sentences.
    """
    n, tags = len(sentences.ids), sentences.languages
    if n < 4:
        raise MeasurementError(f"{n} parallel sentences came; expected at least 4, better 100; give more text")
    if against is None:
        pairs = list(combinations(range(len(tags)), 2))
    else:
        base = sentences.index(against)
        pairs = [(base, k) for k in range(len(tags)) if k != base]
    generator = torch.Generator().manual_seed(seed)
    shuffles = torch.stack([torch.randperm(n, generator=generator) for _ in range(draws)])
    resampled = draw_items(n, resamples, generator)
    halves = torch.stack([torch.randperm(n, generator=generator)[: n // 2] for _ in range(resamples)])
    cells: dict[tuple[AlignmentMeasure, int, int, int], Aligned] = {}
    for depth, site in enumerate(sentences.sites):
        vectors = {pooling: sentences.at(depth, pooling) for pooling in set(POOLING.values())}
        grams = [centred_gram(x) for x in vectors["mean"]]
        for row, column in pairs:
            measured: dict[AlignmentMeasure, DrawnSimilarity] = {
                "mexa": _mexa(vectors["weighted"][row], vectors["weighted"][column], shuffles),
                "mexa_last": _mexa(vectors["last"][row], vectors["last"][column], shuffles),
                "cka": _cka(grams[row], grams[column], shuffles, halves),
                "cosine": _cosine(vectors["mean"][row], vectors["mean"][column], shuffles, resampled),
            }
            for measure, (estimate, interval, null) in measured.items():
                cell = Aligned(
                    measure,
                    tags[row],
                    tags[column],
                    site,
                    estimate,
                    interval,
                    float(null.mean()),
                    rank_p(estimate, null),
                )
                cells[measure, row, column, depth] = cell
    order: list[tuple[AlignmentMeasure, int, int, int]] = [
        (measure, row, column, d) for measure in POOLING for row, column in pairs for d in range(len(sentences.sites))
    ]
    return Alignment(tuple(cells[key] for key in order), tags, sentences.sites, n, draws, seed)


def cosine_matrix(
    x: Float64[Tensor, "sentence hidden"], y: Float64[Tensor, "sentence2 hidden"]
) -> Float64[Tensor, "sentence sentence2"]:
    """Cosine of every row of x with every row of y, however short they are; 0 where a row is 0."""
    lengths = (rows.norm(dim=1, keepdim=True) for rows in (x, y))
    unit_x, unit_y = (rows / length.where(length > 0, 1.0) for rows, length in zip((x, y), lengths, strict=True))
    return unit_x @ unit_y.T


def mutual_best(similarity: Float64[Tensor, "sentence sentence"]) -> Bool[Tensor, "sentence sentence"]:
    """Cells that are strictly larger than all others of their row and of their column, to 12 decimals."""
    similarity = similarity.round(decimals=DECIMALS)
    row_ties = (similarity == similarity.amax(dim=1, keepdim=True)).sum(dim=1, keepdim=True) == 1
    column_ties = (similarity == similarity.amax(dim=0, keepdim=True)).sum(dim=0, keepdim=True) == 1
    best_of_row = (similarity == similarity.amax(dim=1, keepdim=True)) & row_ties
    return best_of_row & (similarity == similarity.amax(dim=0, keepdim=True)) & column_ties


def mexa(x: Float64[Tensor, "sentence hidden"], y: Float64[Tensor, "sentence hidden"]) -> float:
    """Share of sentences whose translation is nearer than every other sentence, seen from both sides.

    (1/n) #{i : S_ii > max_{j≠i} S_ij and S_ii > max_{j≠i} S_ji}, S the cosine; both strict, so duplicates fail.
    For similarities drawn alike chance is 1/(2n - 1).
    Source: Kargaran et al. 2025, arXiv:2410.05873. Its vectors hold BOS where a tokenizer has one, ours do not; its
    last layer is after the final norm, ours before.
    """
    return float(mutual_best(cosine_matrix(x, y)).diagonal().double().mean())


def linear_cka(x: Float64[Tensor, "sentence hidden"], y: Float64[Tensor, "sentence hidden2"]) -> float:
    """Linear centred kernel alignment: ‖Yᵀ X‖² / (‖Xᵀ X‖ ‖Yᵀ Y‖), columns centred, Frobenius norms.

    1 for vectors equal up to rotation and scale. With fewer sentences than dimensions unrelated vectors are far above
    0: read it against its control. Source: Kornblith et al. 2019, arXiv:1905.00414.
    """
    gram_x, gram_y = centred_gram(x), centred_gram(y)
    return float((gram_x * gram_y).sum() / (gram_x.norm() * gram_y.norm()))


def centred_gram(x: Float64[Tensor, "sentence hidden"]) -> Float64[Tensor, "sentence sentence"]:
    """Inner products of rows about their mean."""
    centred = x - x.mean(dim=0)
    return centred @ centred.T


def _mexa(x: Tensor, y: Tensor, shuffles: Int64[Tensor, "draw sentence"]) -> DrawnSimilarity:
    best = mutual_best(cosine_matrix(x, y))
    hits, n = int(best.diagonal().sum()), len(x)
    null = best[torch.arange(n), shuffles].double().mean(dim=1)
    return hits / n, wilson_interval(hits, n), null


def _cosine(
    x: Tensor, y: Tensor, shuffles: Int64[Tensor, "draw sentence"], resampled: Int64[Tensor, "resample sentence"]
) -> DrawnSimilarity:
    cosine = cosine_matrix(x, y)
    translated = cosine.diagonal()
    null = cosine[torch.arange(len(x)), shuffles].mean(dim=1)
    return float(translated.mean()), percentile_interval(translated[resampled].mean(dim=1)), null


def _cka(
    gram_x: Tensor, gram_y: Tensor, shuffles: Int64[Tensor, "draw sentence"], halves: Int64[Tensor, "resample half"]
) -> DrawnSimilarity:
    scale = gram_x.norm() * gram_y.norm()
    estimate = float((gram_x * gram_y).sum() / scale)
    null = (gram_x * gram_y[shuffles[:, :, None], shuffles[:, None, :]]).sum(dim=(1, 2)) / scale
    half_rows = (halves[:, :, None], halves[:, None, :])
    first, second = _centre(gram_x[half_rows]), _centre(gram_y[half_rows])
    parts = (first * second).sum(dim=(1, 2)) / (first.norm(dim=(1, 2)) * second.norm(dim=(1, 2)))
    # The spread of half-samples about their own mean is that of the whole (delete-half jackknife); their bias is not.
    low, high = percentile_interval(parts - parts.mean())
    return estimate, Interval(max(0.0, estimate + low), min(1.0, estimate + high)), null


def _centre(gram: Float64[Tensor, "resample half half"]) -> Float64[Tensor, "resample half half"]:
    means = gram.mean(dim=1, keepdim=True)
    return gram - means - gram.mean(dim=2, keepdim=True) + means.mean(dim=2, keepdim=True)
