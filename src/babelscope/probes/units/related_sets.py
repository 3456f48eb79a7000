"""Whether languages that are related share more neurons, layer by layer."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from einops import einsum

from babelscope.artifacts import NeuronSet
from babelscope.artifacts.shown import shown_by
from babelscope.axes import Bool, Float64, Tensor
from babelscope.errors import LanguageError
from babelscope.languages import Language
from babelscope.languages.lineage import Lineage, lineage_of
from babelscope.probes.geometry.trees import FEWEST, TreeTest, mantel_test, permutations_within, related
from babelscope.probes.probe_evidence import SiteEvidence
from babelscope.sites import NEURON_SITES, Site


@dataclass(frozen=True, eq=False)
class SetProximity:
    """What the sets of two languages share in each layer, against how closely the languages are related."""

    __repr__ = shown_by()

    languages: tuple[Language, ...]
    at: str
    overlap: Float64[Tensor, "layer language language"]
    """Intersection over union of two languages' neurons; NaN where neither has one."""
    tests: dict[int, TreeTest]
    """By layer, against relation 2 (same branch), 1 (same family), 0; layers with a language without neurons are left
    out."""
    draws: int
    seed: int

    def rows(self) -> list[SiteEvidence]:
        """Two rows per layer: what languages share on average, and whether it follows the families."""
        pairs = np.triu_indices(len(self.languages), 1)
        at = NEURON_SITES[NEURON_SITES.index(self.at)]
        rows = []
        for layer, matrix in enumerate(self.overlap.numpy()):
            shared = matrix[pairs]
            rows.append(
                SiteEvidence(
                    claim="languages share neurons",
                    language="",
                    control="",
                    n=len(shared),
                    estimate=float(shared.mean()),
                    note="mean intersection over union, n in pairs of languages",
                    site=str(Site(layer, at)),
                )
            )
            if layer in self.tests:
                test = self.tests[layer]
                rows.append(
                    SiteEvidence(
                        claim="related languages share more neurons",
                        language="",
                        control="languages change places in the table of families",
                        n=len(shared),
                        estimate=test.correlation,
                        p=test.p,
                        draws=self.draws,
                        seed=self.seed,
                        note=f"Spearman over pairs; within scripts p {test.p_within_scripts:.4f}; inside families "
                        f"{test.gap:+.3f}",
                        site=str(Site(layer, at)),
                        null=test.null,
                    )
                )
        return rows


def set_overlap(mask: Bool[Tensor, "language layer neuron"]) -> Float64[Tensor, "layer language language"]:
    """Intersection over union of every two languages' neurons in each layer; NaN where both have none."""
    sets = mask.double()
    shared = einsum(sets, sets, "k l j, m l j -> l k m")
    sizes = sets.sum(dim=2).T
    return shared / (sizes[:, :, None] + sizes[:, None] - shared)


def set_proximity(
    sets: NeuronSet, *, lineage: Mapping[str, Lineage] | None = None, draws: int = 1999, seed: int = 0
) -> SetProximity:
    """Intersection over union of languages' neurons by layer, tested against their families.

    sets: of the rule "specialization", or any other; rules that contrast languages leave little to share.
    lineage: as of `similarity_tree`.
    Control: languages change places in the table of families (Mantel's test), also among those of one script only.
    Raises LanguageError for fewer than four languages, or one without lineage.
    Source: Tan, Wu and Monz 2024, arXiv:2404.11201, which shows the overlap by layer and has no test.
    """
    tags = sets.languages
    if len(tags) < FEWEST:
        raise LanguageError(f"{', '.join(tags)} came; expected at least {FEWEST} languages to compare; select for more")
    own_lineage = {Language.parse(tag): entry for tag, entry in (lineage or {}).items()}
    absent = [tag for tag in tags if tag not in own_lineage]
    table = {**(lineage_of(absent) if absent else {}), **own_lineage}
    relation = related([table[tag] for tag in tags])
    generator = torch.Generator().manual_seed(seed)
    free = torch.stack([torch.randperm(len(tags), generator=generator) for _ in range(draws)])
    scripts = permutations_within([tag.script for tag in tags], draws=draws, generator=generator)
    overlap = set_overlap(sets.mask())
    tests = {
        layer: mantel_test(matrix.numpy(), relation, free, scripts)
        for layer, matrix in enumerate(overlap)
        if not bool(matrix.isnan().any())
    }
    return SetProximity(tags, sets.at, overlap, tests, draws, seed)
