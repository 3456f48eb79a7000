"""How much of a selection would come back with other text: bootstrap, half-splits, and less text."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from einops import reduce

from babelscope.axes import Bool, Float64, Int64, Tensor
from babelscope.controls.agreement import compare_masks
from babelscope.controls.intervals import Interval, percentile_interval
from babelscope.controls.shards import S, Select, ShardSums, generator_of
from babelscope.languages import Language


class BootstrapSets(NamedTuple):
    """Sizes and members of the sets over bootstrap resamples of the text."""

    size: dict[Language, int]
    """Units in the set from all text."""
    interval: dict[Language, Interval]
    """Percentile interval, 95 %, of the size."""
    frequency: Float64[Tensor, "language layer unit"]
    """Share of resamples in which a unit belonged to a language."""
    draws: int
    """Resamples."""


class Stability(NamedTuple):
    """Agreement of one language's sets from two halves of the text, over random half-splits."""

    median: float
    """Jaccard index, |A1 ∩ A2| / |A1 ∪ A2|; NaN where both sets were empty in every split."""
    low: float
    """Lower end of its 95 % range over splits: no confidence interval."""
    high: float
    """Upper end of that range."""
    chance: float
    """Median Jaccard index of sets of these sizes by layer, drawn at random."""
    corrected: float
    """Median of (jaccard - chance) / (1 - chance)."""
    size: int
    """Units in the set from all text."""
    lead: float
    """Median of jaccard less the mean Jaccard index with the other languages' sets of the other half. Any rule finds
    units again that fire often, in every language's set, so that agreement above chance is no evidence of a language;
    a lead is. NaN for one language."""
    lead_low: float
    """Lower end of its 95 % range over splits."""
    lead_high: float
    """Upper end of that range."""
    pair_lead: tuple[tuple[float, float, float], ...]
    """For each language of the whole: median, lower and upper end over splits of `lead_of_pairs`, in the order of the
    languages; NaN for itself, and for fewer than four languages."""


class CorpusSizeRow(NamedTuple):
    """Agreement of a language's set from a part of the text with its set from all of it."""

    share: float
    """Share of the shards used."""
    language: Language
    """Whose set."""
    jaccard: float
    """Median over draws; NaN where both sets were empty in every draw."""
    low: float
    """Lower end of its 95 % range over draws."""
    high: float
    """Upper end of that range."""
    chance: float
    """Median Jaccard index of sets of these sizes by layer, drawn at random."""


def bootstrap_sets(shards: ShardSums[S], select: Select[S], *, draws: int = 200, seed: int) -> BootstrapSets:
    """Select anew, thresholds too, from shards drawn with replacement: S out of S for every language.

    Treats shards as independent. Raises MeasurementError for fewer than 20 shards.
    """
    shards.check()
    full = select(shards.whole())
    member, sizes = torch.zeros(full.shape, dtype=torch.float64), []
    for sums in shards.bootstrap(draws, seed):
        mask = select(sums)
        member += mask
        sizes.append(count_units(mask).tolist())
    columns = zip(*sizes, strict=True)
    return BootstrapSets(
        size=dict(zip(shards.languages, count_units(full).tolist(), strict=True)),
        interval={tag: percentile_interval(column) for tag, column in zip(shards.languages, columns, strict=True)},
        frequency=member / draws,
        draws=draws,
    )


def split_stability(
    shards: ShardSums[S], select: Select[S], *, splits: int = 200, seed: int
) -> dict[Language, Stability]:
    """Select from two disjoint halves of the shards, many times, and compare the two sets of each language.

    A set and its bootstrap copy share 63 % of their data and look stable; two halves share none. The halves are the
    same shards for every language. Raises MeasurementError for fewer than 20 shards.
    """
    shards.check()
    generator, half, agreements, leads, pairs = generator_of(seed), shards.n_shards // 2, [], [], []
    orders = [torch.randperm(shards.n_shards, generator=generator) for _ in range(splits)]
    masks = map(select, shards.each_subset([part for order in orders for part in (order[:half], order[half:])]))
    for first, second in zip(masks, masks, strict=True):
        agreements.append(compare_masks(first, second))
        jaccard = jaccard_of_pairs(first, second)
        leads.append(lead_over_others(jaccard))
        pairs.append(lead_of_pairs(jaccard))
    sizes = count_units(select(shards.whole())).tolist()
    jaccard, chance, corrected = (
        torch.stack([getattr(row, name) for row in agreements], dim=1) for name in ("jaccard", "chance", "corrected")
    )
    lead, pair = torch.stack(leads, dim=1), torch.stack(pairs, dim=2)
    return {
        tag: Stability(
            median_of(jaccard[k]),
            *percentile_interval(jaccard[k]),
            median_of(chance[k]),
            median_of(corrected[k]),
            sizes[k],
            median_of(lead[k]),
            *percentile_interval(lead[k]),
            tuple(range_of(row) for row in pair[k]),
        )
        for k, tag in enumerate(shards.languages)
    }


def jaccard_of_pairs(
    first: Bool[Tensor, "language layer unit"], second: Bool[Tensor, "language layer unit"]
) -> Float64[Tensor, "language language"]:
    """Jaccard index of the row's set of the first half and the column's of the second; NaN where both are empty."""
    a, b = (mask.flatten(start_dim=1).double() for mask in (first, second))
    shared = a @ b.T
    return shared / (a.sum(dim=1)[:, None] + b.sum(dim=1)[None, :] - shared)


def lead_over_others(jaccard: Float64[Tensor, "language language"]) -> Float64[Tensor, " language"]:
    """Jaccard index of each language's two sets, less its mean with the other languages' second sets.

    NaN for one language; pairs of empty sets are left out of the mean.
    """
    diagonal = torch.eye(len(jaccard), dtype=torch.bool)
    return jaccard.diagonal() - jaccard.masked_fill(diagonal, torch.nan).nanmean(dim=1)


def lead_of_pairs(jaccard: Float64[Tensor, "language language"]) -> Float64[Tensor, "language language"]:
    """Jaccard index J of two languages, one from each half, beyond what both share with other languages.

    The median over two others m and n of J_ij − J_im − J_jn + J_mn, with J the mean of both ways round: a language
    whose set is large, or full of units that fire in every text, shares more with all others alike, and that falls out
    of each such tetrad. The median leaves one related pair without effect on the others. The two halves have no
    document in common, so that documents of one topic that fell to two labels do not count in every split. A pair of
    empty sets shares nothing. NaN on the diagonal, and for fewer than four languages.
    """
    n, diagonal = len(jaccard), torch.eye(len(jaccard), dtype=torch.bool)
    if n < 4:
        return torch.full_like(jaccard, torch.nan)
    known_values = jaccard.nan_to_num(0.0)
    pairs = (known_values + known_values.T) / 2
    tetrads = pairs[:, :, None, None] - pairs[:, None, :, None] - pairs[None, :, None, :] + pairs[None, None]
    first, second = (
        diagonal[:, :, None, None] | diagonal[:, None, :, None],
        diagonal[None, :, None, :] | diagonal[None, None],
    )
    twice = first | second | diagonal[None, :, :, None] | diagonal[:, None, None, :]
    return tetrads.masked_fill(twice, torch.nan).flatten(start_dim=2).nanquantile(0.5, dim=2)


def corpus_size_curve(
    shards: ShardSums[S],
    select: Select[S],
    *,
    fractions: Sequence[float] = (0.0625, 0.125, 0.25, 0.5, 0.75),
    draws: int = 10,
    seed: int,
) -> list[CorpusSizeRow]:
    """Agreement with the set from all text, by the share of shards used; random shards, the same for every language.

    The part is inside the whole, so agreement near the whole is partly agreement with itself; `split_stability` is not
    flattered in this way. Raises MeasurementError for fewer than two shards.
    """
    shards.check(fewest=2)
    generator, rows = generator_of(seed), []
    full = select(shards.whole())
    for used in sorted({min(shards.n_shards, max(1, round(share * shards.n_shards))) for share in fractions}):
        parts = [torch.randperm(shards.n_shards, generator=generator)[:used] for _ in range(draws)]
        agreements = [compare_masks(select(sums), full) for sums in shards.each_subset(parts)]
        jaccard, chance = (
            torch.stack([getattr(row, name) for row in agreements], dim=1) for name in ("jaccard", "chance")
        )
        rows += [
            CorpusSizeRow(
                used / shards.n_shards,
                tag,
                median_of(jaccard[k]),
                *percentile_interval(jaccard[k]),
                median_of(chance[k]),
            )
            for k, tag in enumerate(shards.languages)
        ]
    return rows


def count_units(mask: Bool[Tensor, "language layer unit"]) -> Int64[Tensor, " language"]:
    """Units in each language's set."""
    return reduce(mask.long(), "k l u -> k", "sum")


def range_of(samples: Float64[Tensor, " draw"]) -> tuple[float, float, float]:
    """Median of the samples that are not NaN, and both ends of the middle 95 % of them."""
    low, high = percentile_interval(samples)
    return median_of(samples), low, high


def median_of(samples: Float64[Tensor, " draw"]) -> float:
    """Median of the samples that are not NaN; NaN where none is."""
    return percentile_interval(samples, level=0.0).low
