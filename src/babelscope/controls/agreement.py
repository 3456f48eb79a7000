"""How far two families of sets agree, beside what chance gives."""

from typing import NamedTuple

import numpy as np
import torch
from einops import einsum, reduce

from babelscope.artifacts import NeuronSet
from babelscope.axes import Bool, Float64, Int64, Tensor
from babelscope.controls.intervals import benjamini_hochberg
from babelscope.errors import ArtifactError, LanguageError

SMALLEST_P = 1e-30
"""Overlap p-values below this are given as this."""
NEGLIGIBLE = 1e-40


class Agreement(NamedTuple):
    """Two sets of each language, compared."""

    shared: Int64[Tensor, " language"]
    """Units in both."""
    jaccard: Float64[Tensor, " language"]
    """|A ∩ B| / |A ∪ B|; NaN where both are empty."""
    chance: Float64[Tensor, " language"]
    """Jaccard index if the second set were drawn anew in each layer: e / (a + b - e), e = Σ_l a_l b_l / J."""
    lift: Float64[Tensor, " language"]
    """|A ∩ B| / e; NaN where e is 0."""
    corrected: Float64[Tensor, " language"]
    """(jaccard - chance) / (1 - chance): 0 at chance, 1 for equal sets."""


class Overlap(NamedTuple):
    """Which languages share units, pair by pair; every matrix is symmetric."""

    shared: Int64[Tensor, "language language"]
    """Units in both sets; the diagonal holds the set sizes."""
    jaccard: Float64[Tensor, "language language"]
    """|A ∩ B| / |A ∪ B|; NaN where both are empty."""
    expected: Float64[Tensor, "language language"]
    """Σ_l a_l b_l / J: sets drawn from all units of each layer."""
    lift: Float64[Tensor, "language language"]
    """shared / expected; NaN where nothing is expected."""
    expected_in_union: Float64[Tensor, "language language"]
    """Σ_l a_l b_l / |U_l|: sets drawn from the units that any language has; the stricter baseline."""
    lift_in_union: Float64[Tensor, "language language"]
    """shared / expected_in_union; NaN where nothing is expected."""
    p: Float64[Tensor, "language language"]
    """P(share as many or more) for sets drawn layer by layer from all units; 1e-30 at least, NaN on the diagonal."""
    q: Float64[Tensor, "language language"]
    """p after Benjamini-Hochberg over the K(K-1)/2 pairs."""
    p_in_union: Float64[Tensor, "language language"]
    """The same for sets drawn from the units that any language has."""
    q_in_union: Float64[Tensor, "language language"]
    """p_in_union after Benjamini-Hochberg over the K(K-1)/2 pairs."""


def compare_masks(first: Bool[Tensor, "language layer unit"], second: Bool[Tensor, "language layer unit"]) -> Agreement:
    """Jaccard index, chance and lift of each language's two sets."""
    shared = reduce((first & second).long(), "k l j -> k", "sum")
    joined = reduce((first | second).long(), "k l j -> k", "sum")
    a, b = (reduce(mask.double(), "k l j -> k l", "sum") for mask in (first, second))
    expected = reduce(a * b, "k l -> k", "sum") / first.shape[2]
    jaccard = shared.double() / joined
    chance = expected / (reduce(a + b, "k l -> k", "sum") - expected)
    return Agreement(shared, jaccard, chance, _ratio(shared, expected), (jaccard - chance) / (1 - chance))


def set_agreement(a: NeuronSet, b: NeuronSet) -> Agreement:
    """Agreement of two NeuronSets over the same languages, such as from parallel and from monolingual text.

    Raises LanguageError unless both have the same languages in the same order, ArtifactError for other shapes, sites,
    or models.
    """
    if a.languages != b.languages:
        raise LanguageError(
            f"sets over {', '.join(a.languages)} and over {', '.join(b.languages)}; expected the same languages in "
            "the same order; select both from the same ones"
        )
    a.origin.check_same(b.origin, "comparing sets")
    if (a.n_layers, a.n_neurons, a.at) != (b.n_layers, b.n_neurons, b.at):
        raise ArtifactError(
            f"sets of {a.n_layers} x {a.n_neurons} at {a.at} and of {b.n_layers} x {b.n_neurons} at {b.at}; "
            "expected the same layers, neurons and site; select both from the same site"
        )
    return compare_masks(a.mask(), b.mask())


def overlap(sets: NeuronSet) -> Overlap:
    """Units that languages share, against two baselines of chance.

    Chance draws each set anew in each layer, with as many units as it has there, out of all J units or, stricter, out
    of the |U_l| units that any language has: shared is then a sum of independent hypergeometric counts, whose
    distribution is convolved exactly, so nothing is drawn and no seed is needed.
    """
    mask = sets.mask()
    flat = mask.flatten(start_dim=1).double()
    shared = einsum(flat, flat, "a n, b n -> a b").round().long()
    size = shared.diagonal()
    counts = reduce(mask.long(), "k l j -> k l", "sum")
    whole = torch.full((sets.n_layers,), sets.n_neurons)
    union = reduce(mask.any(dim=0).long(), "l j -> l", "sum")
    found = [
        (_expected(counts, pool), *_pair_tests(counts, pool, shared)) for pool in (whole, union)
    ]  # fmt: skip
    (expected, p, q), (expected_in_union, p_in_union, q_in_union) = found
    return Overlap(
        shared=shared,
        jaccard=shared.double() / (size[:, None] + size[None, :] - shared),
        expected=expected,
        lift=_ratio(shared, expected),
        expected_in_union=expected_in_union,
        lift_in_union=_ratio(shared, expected_in_union),
        p=p,
        q=q,
        p_in_union=p_in_union,
        q_in_union=q_in_union,
    )


def _ratio(shared: Tensor, expected: Tensor) -> Tensor:
    return torch.where(expected > 0, shared / expected, torch.nan)


def _expected(
    counts: Int64[Tensor, "language layer"], pool: Int64[Tensor, " layer"]
) -> Float64[Tensor, "language language"]:
    share = counts / pool.clamp(min=1).double()
    return einsum(counts.double(), share, "a l, b l -> a b")


def _pair_tests(
    counts: Int64[Tensor, "language layer"],
    pool: Int64[Tensor, " layer"],
    shared: Int64[Tensor, "language language"],
) -> tuple[Float64[Tensor, "language language"], Float64[Tensor, "language language"]]:
    rows, columns = torch.triu_indices(len(counts), len(counts), offset=1)
    log_factorial = torch.lgamma(torch.arange(int(pool.max()) + 2).double() + 1).numpy()
    found = [
        shared_at_least(int(shared[a, b]), counts[a].numpy(), counts[b].numpy(), pool.numpy(), log_factorial)
        for a, b in zip(rows.tolist(), columns.tolist(), strict=True)
    ]
    tables = []
    for values in (torch.tensor(found, dtype=torch.float64), benjamini_hochberg(found)):
        table = torch.full(shared.shape, torch.nan, dtype=torch.float64)
        table[rows, columns] = values
        table[columns, rows] = values
        tables.append(table)
    return tables[0], tables[1]


def shared_at_least(observed: int, a: np.ndarray, b: np.ndarray, pool: np.ndarray, log_factorial: np.ndarray) -> float:
    """P(X >= observed) for X = Σ_l Hypergeometric(pool_l, a_l, b_l), by convolution over layers."""
    mass, least = np.ones(1), 0
    for a_l, b_l, n_l in zip(a.tolist(), b.tolist(), pool.tolist(), strict=True):
        if a_l == 0 or b_l == 0:
            continue
        start = max(0, a_l + b_l - n_l)
        x = np.arange(start, min(a_l, b_l) + 1)
        log_mass = (
            _log_choose(log_factorial, a_l, x)
            + _log_choose(log_factorial, n_l - a_l, b_l - x)
            - _log_choose(log_factorial, n_l, np.array([b_l]))
        )
        mass, least = np.convolve(mass, np.exp(log_mass)), least + start
        kept = np.flatnonzero(mass > NEGLIGIBLE)
        mass, least = mass[kept[0] : kept[-1] + 1], least + int(kept[0])
    tail = float(mass[max(0, observed - least) :].sum())
    return min(1.0, max(SMALLEST_P, tail))


def _log_choose(log_factorial: np.ndarray, n: int, k: np.ndarray) -> np.ndarray:
    return log_factorial[n] - log_factorial[k] - log_factorial[n - k]
