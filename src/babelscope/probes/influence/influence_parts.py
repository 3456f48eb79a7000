"""An influence in parts: of each layer for every passage, and of each token of some passages."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from babelscope.axes import Float64, Int64, Tensor
from babelscope.corpus import Batch, TokenDocument
from babelscope.probes.influence.gradient_walk import GradientWalk
from babelscope.probes.influence.kronecker_curvature import KroneckerCurvature, LinearRecord
from babelscope.probes.influence.mlp_projections import Records


class SolvedBatch(NamedTuple):
    """Some queries' gradients, and the same through the inverse of the curvature."""

    rows: list[int]
    records: Records
    solved: dict[str, Tensor]
    """(G + λI)⁻¹ of the gradients, by projection."""


@dataclass(frozen=True, eq=False)
class FittedInfluence:
    """Text that goes through a model whose curvatures are known."""

    steps: GradientWalk
    curvatures: Mapping[str, KroneckerCurvature]
    damping: float

    def solve(self, queries: Sequence[TokenDocument]) -> list[SolvedBatch]:
        """One pass over some queries, numbered from 0."""
        batches: list[SolvedBatch] = []

        def add(batch: Batch, records: Records) -> None:
            solved = {
                name: self.curvatures[name].solve(record.weight_gradients(), damping=self.damping)
                for name, record in records.items()
            }
            batches.append(SolvedBatch(batch.places, records, solved))

        self.steps.run(queries, add)
        return batches

    def scores(
        self, queries: Sequence[TokenDocument], documents: Sequence[TokenDocument], passages: int
    ) -> tuple[Float64[np.ndarray, "layer query passage"], Float64[np.ndarray, "query passage"]]:
        """Influence by layer of the weights, and inner products of plain gradients.

        documents: numbered among so many passages; those that are not among them score 0.
        """
        batches, layers = self.solve(queries), self.steps.projections.layers
        by_layer, gradient = np.zeros((len(layers), len(queries), passages)), np.zeros((len(queries), passages))

        def add(batch: Batch, records: Records) -> None:
            for rows, of_queries, solved in batches:
                at = np.ix_(rows, batch.places)
                for name, record in records.items():
                    by_layer[layers.index(self.steps.projections.layer_of(name))][at] += products_with(
                        solved[name], record
                    )
                    gradient[at] += of_queries[name].products(record).double().cpu().numpy()

        self.steps.run(documents, add)
        return by_layer, gradient

    def token_parts(
        self,
        groups: Sequence[Sequence[TokenDocument]],
        documents: Sequence[TokenDocument],
        first: Int64[np.ndarray, "query place"],
    ) -> dict[tuple[int, int], Float64[np.ndarray, " token"]]:
        """By (query, passage): δ_tᵀ (G + λI)⁻¹∇q x_t, summed over projections, for each token t of the passage.

        groups: the queries, each group numbered from 0. first: the passages of each query that are taken apart.
        """
        parts, before = dict[tuple[int, int], np.ndarray](), 0
        for group in groups:
            rows_of = defaultdict[int, list[int]](list)
            for row in range(len(group)):
                for passage in first[before + row].tolist():
                    rows_of[passage].append(row)
            chosen = [document for document in documents if int(document.id) in rows_of]
            self.steps.bar.total += len(group) + len(chosen)
            for (row, passage), values in self.group_parts(self.solve(group), chosen, rows_of):
                parts[before + row, passage] = values
            before += len(group)
        return parts

    def group_parts(
        self, batches: Sequence[SolvedBatch], documents: Sequence[TokenDocument], rows_of: Mapping[int, Sequence[int]]
    ) -> Iterator[tuple[tuple[int, int], Float64[np.ndarray, " token"]]]:
        """The parts of one group's queries; rows_of: by passage, the queries that it is taken apart for."""
        place_of = {row: (batch.solved, place) for batch in batches for place, row in enumerate(batch.rows)}
        parts = list[tuple[tuple[int, int], np.ndarray]]()

        def add(batch: Batch, records: Records) -> None:
            for at, (passage, document) in enumerate(zip(batch.places, batch.documents, strict=True)):
                for row in rows_of[passage]:
                    solved, place = place_of[row]
                    by_token = np.zeros(len(document.tokens))
                    for name, record in records.items():
                        products = (record.gradients[at] @ solved[name][place]) * record.inputs[at]
                        by_token += products.sum(dim=-1)[: len(by_token)].double().cpu().numpy()
                    parts.append(((row, passage), by_token))

        if documents:
            self.steps.run(documents, add)
        return iter(parts)


def products_with(solved: Tensor, record: LinearRecord) -> Float64[np.ndarray, "query passage"]:
    """Inner products of solved gradients and those of a batch."""
    products = solved.flatten(1) @ record.weight_gradients().flatten(1).mT
    return products.double().cpu().numpy()
