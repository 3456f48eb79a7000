"""One vector per document at some sites: a weighted sum over its tokens."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from babelscope.axes import Bool, Float, Float64, Tensor
from babelscope.corpus import Batch
from babelscope.recording.watchers import ReadSite, SiteValue
from babelscope.sites import Site

Weigh = Callable[[Bool[Tensor, "batch token"]], Float64[Tensor, "batch token"]]
"""From the tokens that count to the weight of each token."""


@dataclass(frozen=True, eq=False)
class DocumentVectors:
    """Σ_t weight_t · value_t of each of some numbered documents, by kind of weight; NaN until a document is read."""

    sites: tuple[Site, ...]
    weights: Mapping[str, Weigh]
    vectors: dict[str, Float[Tensor, "site document unit"]]

    @classmethod
    def empty(
        cls, sites: tuple[Site, ...], weights: Mapping[str, Weigh], documents: int, units: int, dtype: torch.dtype
    ) -> "DocumentVectors":
        """No document read yet; dtype: of the vectors, which are summed in float64."""
        shape = (len(sites), documents, units)
        return cls(sites, weights, {name: torch.full(shape, torch.nan, dtype=dtype) for name in weights})

    @property
    def hooks(self) -> Mapping[Site, ReadSite]:
        """The same at every site."""
        return dict.fromkeys(self.sites, self.pool)

    def pool(self, batch: Batch, site_value: SiteValue) -> dict[str, Float64[Tensor, "batch unit"]]:
        """The vectors of a batch at one site."""
        wide = site_value.value.double()
        return {
            name: torch.einsum("bt,bth->bh", weigh(site_value.counted), wide).cpu()
            for name, weigh in self.weights.items()
        }

    def add(self, batch: Batch, values: dict[Site, dict[str, Float64[Tensor, "batch unit"]]]) -> None:
        """Put a batch's documents into their places."""
        for row, site in enumerate(self.sites):
            for name, pooled in values[site].items():
                self.vectors[name][row, batch.places] = pooled.to(self.vectors[name].dtype)


def mean_weights(counted: Bool[Tensor, "batch token"]) -> Float64[Tensor, "batch token"]:
    """The same weight for each counted token; they sum to 1."""
    return counted.double() / counted.double().sum(dim=1, keepdim=True)
