"""How far two families of sets agree, beside what chance gives."""

from typing import NamedTuple

import torch
from einops import reduce

from babelscope.artifacts import NeuronSet
from babelscope.axes import Bool, Float64, Int64, Tensor
from babelscope.errors import ArtifactError, LanguageError


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


def _ratio(shared: Tensor, expected: Tensor) -> Tensor:
    return torch.where(expected > 0, shared / expected, torch.nan)
