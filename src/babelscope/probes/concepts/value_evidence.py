"""The neurons that write a concept: what else they write, where their keys answer, and what a dose of them does."""

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass

from babelscope.artifacts.shown import shown_by
from babelscope.axes import Float64, Int64, Tensor
from babelscope.languages import Language
from babelscope.probes.concepts.concept_probe import ConceptDirection
from babelscope.probes.probe_evidence import SiteEvidence

LEVEL = 0.05
WRITTEN = 30
"""Tokens of the largest logits whose languages are counted."""


@dataclass(frozen=True, eq=False)
class ConceptValues:
    """Neurons that write a concept and are active on it, what else they write, and where their keys answer."""

    __repr__ = shown_by()

    concept: str
    language: Language
    """In which the concept and its neurons were found."""
    languages: tuple[Language, ...]
    direction: ConceptDirection
    neurons: tuple[tuple[int, int], ...]
    """Actual sources: (layer, neuron), by falling cosine."""
    potential: int
    """Columns of largest cosine that they were taken from."""
    cosine: Float64[Tensor, " neuron"]
    matched: tuple[tuple[int, int], ...]
    """For each source another neuron of its layer, whose column is about as long."""
    written: Int64[Tensor, "which neuron"]
    """Languages among the tokens that each writes: of the sources, then of the matched."""
    gap: Float64[Tensor, "which neuron language"]
    """Mean activation on text with the concept minus that on text without."""
    p: Float64[Tensor, "which neuron language"]
    """Rank of the gap among those with the labels permuted within the language."""
    documents: Mapping[Language, tuple[int, int]]
    """With the concept, and without."""
    dose_documents: Mapping[Language, int]
    """Those without the concept on which the dose was measured."""
    doses: tuple[float, ...]
    """The first is 0."""
    score: Float64[Tensor, "which dose language"]
    """Mean over documents of the last stream along the direction, while the dose is added to every neuron's value."""
    draws: int
    seed: int

    def answering(self, fewest: int) -> tuple[float, float]:
        """Share of neurons with a positive gap and p ≤ 0.05 in at least so many languages: sources, matched."""
        counts = ((self.p <= LEVEL) & (self.gap > 0)).sum(dim=2)
        sources, matched = (counts >= fewest).double().mean(dim=1).tolist()
        return sources, matched

    def rows(self) -> list[SiteEvidence]:
        """The direction, what values write, in how many languages keys answer, and the dose by language."""
        row = functools.partial(SiteEvidence, draws=self.draws, seed=self.seed)
        n = len(self.neurons)
        rows = [
            row(
                claim=f"{self.concept} are told apart",
                language=self.language,
                control="labels shuffled",
                n=sum(self.documents[self.language]),
                estimate=self.direction.accuracy,
                p=self.direction.p,
                null=self.direction.null,
                note="mean of both recalls on other folds; n in documents",
            ),
            row(
                claim=f"languages among {WRITTEN} tokens that a neuron of {self.concept} writes",
                language="",
                control="neurons of the layer with a column as long",
                n=n,
                estimate=float(self.written[0].double().mean()),
                null=float(self.written[1].double().mean()),
                note=f"n in neurons, of {self.potential} columns nearest to the direction",
            ),
        ]
        for fewest in sorted({2, math.ceil(len(self.languages) / 2), len(self.languages)}):
            sources, matched = self.answering(fewest)
            rows.append(
                row(
                    claim=f"neurons of {self.concept} whose keys answer in {fewest} languages or more",
                    language="",
                    control="neurons of the layer with a column as long",
                    n=n,
                    estimate=sources,
                    null=matched,
                    note="share with a higher mean on the concept, p <= 0.05 by permuted labels in each language",
                )
            )
        for k, tag in enumerate(self.languages):
            for at, dose in enumerate(self.doses[1:], start=1):
                moved, control = (self.score[:, at, k] - self.score[:, 0, k]).tolist()
                rows.append(
                    row(
                        claim=f"score of {self.concept} under {dose:g} added to the neurons",
                        language=tag,
                        control="the same added to neurons of the layer with a column as long",
                        n=self.dose_documents[tag],
                        estimate=moved,
                        null=control,
                        note="rise along the direction, in units of the stream; n in documents",
                    )
                )
        return rows
