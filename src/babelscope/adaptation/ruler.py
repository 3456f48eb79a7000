"""What a model was before an adaptation, to measure it by afterwards."""

from dataclasses import dataclass
from typing import NamedTuple

import torch

from babelscope.adaptation.material import Material
from babelscope.adaptation.representations import first_documents, mean_cosine, sentence_means
from babelscope.artifacts.shown import shown_by
from babelscope.axes import Float32, Float64, Tensor
from babelscope.languages import Language
from babelscope.models import Layout, layout_of
from babelscope.subnetworks import Dense, Student, Subnetwork
from babelscope.subnetworks.row_steering import RowSteering, rows_with


class Reading(NamedTuple):
    """The adapted model beside what it was."""

    after: dict[Language, float]
    moved: dict[str, Float64[Tensor, " layer"]] | None
    similarity: dict[Language, Float64[Tensor, " layer"]]


@dataclass(frozen=True, eq=False)
class Ruler:
    """What the model was before, to measure it by."""

    __repr__ = shown_by()

    material: Material
    before: dict[Language, float]
    means: dict[Language, Float32[Tensor, "layer document hidden"]]
    weights: dict[str, list[Tensor]]

    @classmethod
    def at(cls, material: Material, *, progress: bool = False) -> "Ruler":
        """Measure the model as it is now."""
        layout = layout_of(material.model)
        means = {part.language: sentence_means(layout, first_documents(part)).float() for part in material.test}
        return cls(material, material.scores(layout, progress=progress), means, mlp_weights(layout))

    def read(self, student: Student, after: dict[Language, float], steering: RowSteering | None = None) -> Reading:
        """Measure it again, adapted, with these bits per byte, and each language with what acts on its rows."""
        layout = layout_of(self.material.model)
        similarity: dict[Language, Tensor] = {}
        for part in self.material.test:
            with rows_with(steering, (part.language,)):
                means = sentence_means(layout, first_documents(part))
            similarity[part.language] = mean_cosine(self.means[part.language].double(), means)
        return Reading(after, self.moved(student), similarity)

    def moved(self, student: Student) -> dict[str, Float64[Tensor, " layer"]] | None:
        """Length of the change of each layer's MLP weights, by role; None for adapters beside the weights."""
        if not isinstance(student, Subnetwork | Dense):
            return None
        weights_after = mlp_weights(layout_of(self.material.model))
        return {
            role: torch.stack([(a - b).double().norm() for a, b in zip(weights_after[role], old, strict=True)])
            for role, old in self.weights.items()
        }


def mlp_weights(layout: Layout) -> dict[str, list[Tensor]]:
    """A copy of the MLPs' weights, by role and layer."""
    layers = [layout.neuron_rows(layer) for layer in range(layout.n_layers)]
    return {role: [rows[role].detach().clone() for rows in layers] for role in layers[0]}
