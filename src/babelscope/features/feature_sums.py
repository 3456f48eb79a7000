"""Sums of an autoencoder's features: the totals that a batch is added to, in the form that a pass commits."""

import torch
from einops import rearrange

from babelscope.artifacts import SiteRecord
from babelscope.artifacts.sae import LoadedSAE
from babelscope.axes import Tensor
from babelscope.corpus import Batch
from babelscope.errors import MeasurementError
from babelscope.features.firing import FeatureAddend, feature_addend
from babelscope.models import Layout
from babelscope.recording.site_sums import document_shards
from babelscope.recording.watchers import ReadSite, SiteValue
from babelscope.sites import Site


class FeatureSums:
    """Running totals of an autoencoder's features, in the place of those of the site's own units."""

    def __init__(self, layout: Layout, sae: LoadedSAE, languages: int, shards: int) -> None:
        device = layout.device_of(sae.site)
        self.sae = sae.to(device)
        self.hooks: dict[Site, ReadSite] = {sae.site: self.addend}
        features = sae.n_features

        def zeros(*shape: int, dtype: torch.dtype = torch.int64) -> Tensor:
            return torch.zeros(*shape, dtype=dtype, device=device)

        self.total = {
            "active": zeros(languages, features),
            "shard_active": zeros(languages, shards, features, dtype=torch.int32),
            "present": zeros(languages, features),
            "shard_present": zeros(languages, shards, features, dtype=torch.int32),
            "shard_documents": zeros(languages, shards),
            "sum": zeros(languages, features, dtype=torch.float64),
            "shard_sum": zeros(languages, shards, features, dtype=torch.float64),
            "sumsq": zeros(languages, features, dtype=torch.float64),
            "norm": zeros(languages, dtype=torch.float64),
        }

    def addend(self, batch: Batch, site_value: SiteValue) -> FeatureAddend:
        """What one batch adds; heads and experts' neurons are taken flat, as the autoencoder was trained on them."""
        document = site_value.counted.nonzero()[:, 0]
        return feature_addend(self.sae, site_value.rows(), document, len(site_value.counted))

    def add(self, batch: Batch, values: dict[Site, FeatureAddend]) -> None:
        """Add a batch of one language to the totals; raises MeasurementError at NaN or infinity."""
        addend, total, language = values[self.sae.site], self.total, batch.documents[0].language
        # A NaN fires nowhere, and so leaves no trace in the features' own sums.
        if not bool(torch.isfinite(addend.sumsq).all() & torch.isfinite(addend.norm)):
            raise MeasurementError(
                f"site '{self.sae.site}' gave NaN or infinity; expected finite activations; try dtype float32"
            )
        present = addend.active > 0
        total["active"][language] += addend.active.sum(dim=0, dtype=torch.float64).to(torch.int64)
        total["present"][language] += present.sum(dim=0)
        total["sum"][language] += addend.sum.sum(dim=0)
        total["sumsq"][language] += addend.sumsq
        total["norm"][language] += addend.norm
        if total["shard_active"].shape[1]:
            places = document_shards(batch, total["shard_active"].shape[1]).to(addend.active.device)
            total["shard_active"][language].index_add_(0, places, addend.active.to(torch.int32))
            total["shard_present"][language].index_add_(0, places, present.to(torch.int32))
            total["shard_sum"][language].index_add_(0, places, addend.sum)
            total["shard_documents"][language].index_add_(0, places, torch.ones_like(places))

    def record(self) -> SiteRecord:
        """The totals as an Observation holds them, features being the units."""
        total = {name: tensor.cpu() for name, tensor in self.total.items()}

        def by_feature(name: str) -> Tensor:
            return rearrange(total[name], "k j -> 1 j k").contiguous()

        return SiteRecord(
            layers=(self.sae.site.layer or 0,),
            active=by_feature("active"),
            sum=by_feature("sum"),
            sumsq=by_feature("sumsq"),
            norm=total["norm"][None],
            shard_active=rearrange(total["shard_active"], "k s j -> s 1 j k").contiguous(),
        )

    def state(self) -> dict[str, Tensor]:
        """The totals by name, for a checkpoint."""
        return {f"{self.sae.site}/{name}": tensor for name, tensor in self.total.items()}
