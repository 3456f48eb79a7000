"""Neurons and features alike: where they are read, how one is switched off, and what it adds to the stream."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch

from babelscope.ablation import switched_off
from babelscope.ablation.ablated_features import features_removed
from babelscope.artifacts import NeuronSet
from babelscope.artifacts.feature_set import FeatureSet
from babelscope.artifacts.sae import LoadedSAE
from babelscope.axes import Bool, Float, Int64, Tensor
from babelscope.languages import Language
from babelscope.models import Layout
from babelscope.recording.watchers import SiteValue
from babelscope.sites import Site


@dataclass(frozen=True)
class Unit:
    """One neuron or feature."""

    site: Site
    """Where it is."""
    index: int
    """Its place there; neurons of experts are counted expert after expert."""

    def __str__(self) -> str:
        return f"{self.site}[{self.index}]"


class UnitValues(NamedTuple):
    """What some units gave for one batch."""

    value: Float[Tensor, "batch token unit"]
    active: Bool[Tensor, "batch token unit"]


@dataclass(frozen=True, eq=False)
class NeuronSource:
    """Neurons of a NeuronSet."""

    layout: Layout
    sets: NeuronSet
    language: Language
    kind = "neuron"

    @cached_property
    def scores(self) -> Mapping[Unit, float]:
        """All units of the language with the score of the method that selected them, by layer and place."""
        selected = self.sets[self.language]
        units = [Unit(Site(layer, selected.at), n) for layer, n in selected.as_dict()[selected.languages[0]]]  # pyright: ignore[reportArgumentType]
        return dict(zip(units, selected.score.tolist(), strict=True))

    @cached_property
    def _selected(self) -> Bool[Tensor, "layer neuron"]:
        return self.sets.mask().any(dim=0)

    def read(self, site_value: SiteValue, which: Int64[Tensor, " unit"]) -> UnitValues:
        """A neuron of an expert is 0 and not active where a token was not given to its expert."""
        which = which.to(site_value.value.device)
        if site_value.routes is None:
            return UnitValues(site_value.value[..., which], site_value.sign_source[..., which] > 0)
        width = site_value.value.shape[-1]
        chosen = site_value.routes[..., None] == which // width
        value, sign_source = (part[..., which % width] * chosen for part in (site_value.value, site_value.sign_source))
        return UnitValues(value.sum(dim=2), (sign_source > 0).any(dim=2))

    def without(self, unit: Unit) -> AbstractContextManager[None]:
        """Held at 0, as `ablation_matrix` does with sets."""
        assert unit.site.layer is not None
        mask = torch.zeros_like(self._selected)
        mask[unit.site.layer, unit.index] = True
        return switched_off(self.layout, mask, at=unit.site.at)

    def written(self, unit: Unit) -> Float[Tensor, " hidden"]:
        """Its column of the down projection, times the family's factor, through the norm of the MLP's output if any."""
        layer, family = unit.site.layer, self.layout.family
        assert layer is not None
        column = self.layout.down_weight(layer)[:, unit.index] * self.layout.factor()
        return self.layout.layer(layer).get_submodule(family.mlp_norm)(column) if family.mlp_norm else column

    def others(self, site: Site) -> Int64[Tensor, " unit"]:
        """Neurons of the same layer."""
        assert site.layer is not None
        return (~self._selected[site.layer]).nonzero().flatten()


@dataclass(frozen=True, eq=False)
class FeatureSource:
    """Features of a FeatureSet, with its autoencoder."""

    layout: Layout
    sets: FeatureSet
    language: Language
    sae: LoadedSAE
    spare_first: int
    """Tokens that begin a text, at which nothing is taken out."""
    kind = "feature"

    @cached_property
    def scores(self) -> Mapping[Unit, float]:
        """All units of the language with the score of the method that selected them, best first."""
        selected = self.sets[self.language]
        return {
            Unit(selected.site, n): score
            for n, score in zip(selected.features(self.language).tolist(), selected.score.tolist(), strict=True)
        }

    def read(self, site_value: SiteValue, which: Int64[Tensor, " unit"]) -> UnitValues:
        """Values of the encoder; a feature is active where it fires."""
        sae = self.sae if self.sae.w_enc.device == site_value.value.device else self.sae.to(site_value.value.device)
        value = sae.encode_some(site_value.value, which.to(site_value.value.device))
        return UnitValues(value, value > 0)

    def without(self, unit: Unit) -> AbstractContextManager[None]:
        """Its decoder row projected out of the stream, as `feature_ablation` does with sets."""
        return features_removed(self.layout, self.sae, torch.tensor([unit.index]), spare_first=self.spare_first)

    def written(self, unit: Unit) -> Float[Tensor, " hidden"]:
        """Its row of the decoder."""
        return self.sae.w_dec[unit.index]

    def others(self, site: Site) -> Int64[Tensor, " unit"]:
        """Features of the autoencoder."""
        return (~self.sets.mask().any(dim=0)).nonzero().flatten()


UnitSource = NeuronSource | FeatureSource
"""The units of one language in an artifact, with the model that they are of."""
