"""Which languages a model holds alike, as a tree at each depth, and whether families or scripts explain it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from scipy.cluster.hierarchy import average
from scipy.spatial.distance import squareform
from scipy.stats import rankdata

from babelscope.artifacts.shown import shown_by
from babelscope.axes import Float64, Int64, Tensor
from babelscope.controls import rank_p
from babelscope.errors import LanguageError, MeasurementError
from babelscope.languages import Language
from babelscope.languages.lineage import Lineage, lineage_of
from babelscope.probes.geometry.alignment import cosine_matrix
from babelscope.probes.geometry.sentences import Pooling, Sentences
from babelscope.probes.probe_evidence import SiteEvidence
from babelscope.sites import Site

FEWEST = 4
"""Fewer languages than this have too few orders for a permutation test."""


class TreeTest(NamedTuple):
    """A similarity matrix against a table of relations, at one depth."""

    correlation: float
    """Spearman's, over pairs of languages, of similarity with degree of relation."""
    p: float
    """Rank of the correlation when languages change places in the table (Mantel's test), one-sided."""
    p_within_scripts: float
    """The same with places changed only among languages of one script: what relation adds to script; 1 for scripts."""
    null: float
    """Mean correlation under free permutations: about 0."""
    null_within_scripts: float
    """Mean correlation under those within scripts: what script alone gives."""
    gap: float
    """Mean similarity inside families minus that between them; NaN where there is but one kind of pair."""


@dataclass(frozen=True, eq=False)
class SimilarityTree:
    """Language similarity at each depth, its average-linkage tree, and its tests."""

    __repr__ = shown_by()

    languages: tuple[Language, ...]
    lineage: dict[Language, Lineage]
    sites: tuple[Site, ...]
    similarity: Float64[Tensor, "depth language language"]
    """Mean over parallel sentences of the cosine between translations."""
    family: tuple[TreeTest, ...]
    """By depth, against relation 2 (same branch), 1 (same family), 0."""
    script: tuple[TreeTest, ...]
    """By depth, against relation 1 (same script), 0: the rival explanation."""
    sentences: int
    draws: int
    seed: int

    def linkage(self, depth: int) -> Float64[np.ndarray, "merge 4"]:
        """Average-linkage merges on 1 - similarity, in scipy's form: two clusters, their distance, the new size."""
        return average_linkage(self.similarity[depth])

    def newick(self, depth: int) -> str:
        """The tree in Newick form; lengths are differences of height, a leaf's height is 0."""
        height, text = [0.0] * len(self.languages), [str(tag) for tag in self.languages]
        for first, second, distance, _ in self.linkage(depth):
            pair = [f"{text[int(at)]}:{distance / 2 - height[int(at)]:.6g}" for at in (first, second)]
            text.append(f"({','.join(pair)})")
            height.append(distance / 2)
        return f"{text[-1]};"

    def rows(self) -> list[SiteEvidence]:
        """Two rows per depth: families, and scripts."""
        return [
            SiteEvidence(
                claim=f"similarity follows {name}",
                language="",
                control="languages change places in the table",
                n=len(self.languages) * (len(self.languages) - 1) // 2,
                estimate=test.correlation,
                p=test.p,
                draws=self.draws,
                seed=self.seed,
                note=f"Spearman over pairs of languages, {self.sentences} sentences"
                + (
                    f"; within scripts p {test.p_within_scripts:.4f}, null {test.null_within_scripts:.3f}"
                    if name == "family"
                    else ""
                ),
                site=str(site),
                null=test.null,
            )
            for name, tests in (("family", self.family), ("script", self.script))
            for site, test in zip(self.sites, tests, strict=True)
        ]


def similarity_tree(
    sentences: Sentences,
    *,
    pooling: Pooling = "mean",
    centred: bool = False,
    lineage: Mapping[str, Lineage] | None = None,
    draws: int = 9999,
    seed: int = 0,
) -> SimilarityTree:
    """Similarity of languages on parallel text at each depth, as trees, tested against linguistic families.

    similarity(a, b) = mean_i cos(a_i, b_i) over sentences i.
    centred: take every sentence's mean over languages from its vectors, so that shared content and the large common
    direction do not hide what differs.
    lineage: family and branch by tag, for languages that the built-in table lacks or has otherwise.
    Raises LanguageError for a language without lineage, or fewer than four languages.
    Source: mPLM-Sim, Lin et al. 2024, arXiv:2305.13684; the test is Mantel's 1967.
    """
    tags = sentences.languages
    if len(tags) < FEWEST:
        raise LanguageError(f"{', '.join(tags)} came; expected at least {FEWEST} languages for a tree; add text")
    given_lineage = {Language.parse(tag): lineage_of_tag for tag, lineage_of_tag in (lineage or {}).items()}
    lineages = (
        {**lineage_of([tag for tag in tags if tag not in given_lineage]), **given_lineage}
        if set(tags) - set(given_lineage)
        else given_lineage
    )
    relation = related([lineages[tag] for tag in tags])
    scripts = [tag.script for tag in tags]
    same_script = (np.array(scripts)[:, None] == np.array(scripts)[None]).astype(np.float64)
    generator = torch.Generator().manual_seed(seed)
    free = torch.stack([torch.randperm(len(tags), generator=generator) for _ in range(draws)])
    within = permutations_within(scripts, draws=draws, generator=generator)
    matrices, family, script = [], [], []
    for depth in range(len(sentences.sites)):
        x = sentences.at(depth, pooling)
        matrices.append(language_similarity(x - x.mean(dim=0) if centred else x))
        values = matrices[-1].numpy()
        family.append(mantel_test(values, relation, free, within))
        script.append(mantel_test(values, same_script, free, within))
    return SimilarityTree(
        languages=tags,
        lineage={tag: lineages[tag] for tag in tags},
        sites=sentences.sites,
        similarity=torch.stack(matrices),
        family=tuple(family),
        script=tuple(script),
        sentences=len(sentences.ids),
        draws=draws,
        seed=seed,
    )


def language_similarity(x: Float64[Tensor, "language sentence hidden"]) -> Float64[Tensor, "language language"]:
    """Mean over sentences of the cosine between two languages' vectors of the same sentence; 1 on the diagonal."""
    by_sentence = [cosine_matrix(x[:, i], x[:, i]) for i in range(x.shape[1])]
    similarity = torch.stack(by_sentence).mean(dim=0)
    return similarity.fill_diagonal_(1.0)


def average_linkage(similarity: Float64[Tensor, "language language"]) -> Float64[np.ndarray, "merge 4"]:
    """Average-linkage clustering of 1 - similarity."""
    distance = (1 - (similarity + similarity.T) / 2).clamp(min=0).fill_diagonal_(0.0)
    return average(squareform(distance.numpy(), checks=False))


def related(lineage: Sequence[Lineage]) -> Float64[np.ndarray, "language language"]:
    """Degree of relation: 2 the same branch, 1 the same family, 0 neither."""
    family, branch = (np.array([entry[part] for entry in lineage]) for part in (0, 1))
    same_family = family[:, None] == family[None]
    return same_family.astype(np.float64) + (same_family & (branch[:, None] == branch[None]))


def permutations_within(
    groups: Sequence[str], *, draws: int, generator: torch.Generator
) -> Int64[Tensor, "draw language"]:
    """Random orders in which an item only changes places with items of its own group."""
    order = torch.arange(len(groups)).repeat(draws, 1)
    for group in sorted(set(groups)):
        places = torch.tensor([place for place, group_at_place in enumerate(groups) if group_at_place == group])
        shuffled = torch.stack([torch.randperm(len(places), generator=generator) for _ in range(draws)])
        order[:, places] = places[shuffled]
    return order


def mantel_test(
    similarity: Float64[np.ndarray, "language language"],
    relation: Float64[np.ndarray, "language language"],
    free: Int64[Tensor, "draw language"],
    within: Int64[Tensor, "draw language"],
) -> TreeTest:
    """Spearman correlation of two matrices over pairs, against languages changing places in the second.

    Raises MeasurementError where all pairs are related alike.
    """
    upper = np.triu_indices(len(similarity), 1)
    ranks, kin = (rankdata(matrix[upper]) for matrix in (similarity, relation))
    if np.ptp(kin) == 0:
        raise MeasurementError("all pairs of languages are related alike; expected two degrees; add other languages")
    ranks, kin = ((x - x.mean()) / (np.linalg.norm(x - x.mean()) or 1.0) for x in (ranks, kin))
    square = np.zeros(relation.shape)
    square[upper] = kin
    square += square.T
    first, second = upper
    correlation = float(ranks @ kin)
    null_correlations = [square[order[:, first], order[:, second]] @ ranks for order in (free.numpy(), within.numpy())]
    related = relation[upper] > 0
    values = similarity[upper]
    gap = float(values[related].mean() - values[~related].mean()) if 0 < related.sum() < len(related) else float("nan")
    return TreeTest(
        correlation,
        *(rank_p(correlation, draws + 1e-12) for draws in null_correlations),
        null=float(null_correlations[0].mean()),
        null_within_scripts=float(null_correlations[1].mean()),
        gap=gap,
    )
