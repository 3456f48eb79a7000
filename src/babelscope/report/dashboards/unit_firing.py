"""When units fire: on how many tokens of a text, and where most of all."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from babelscope.axes import Float32, Int64, Tensor
from babelscope.corpus import Batch
from babelscope.recording.watchers import ReadSite, SiteValue
from babelscope.report.dashboards.unit_sources import Unit, UnitSource
from babelscope.sites import Site

FiringAddend = tuple[Int64[Tensor, " unit"], Float32[Tensor, "batch unit"], Int64[Tensor, "batch unit"]]
"""Tokens on which each unit is active, and its greatest value in each document with that token's place."""


@dataclass(frozen=True, eq=False)
class UnitFiring:
    """Totals over some numbered documents; filled by a walk."""

    source: UnitSource
    by_site: Mapping[Site, Int64[Tensor, " _"]]
    """Place of each site's units in the totals below."""
    units: Sequence[Unit]
    active: Int64[Tensor, " unit"]
    """Counted tokens on which the unit is active."""
    greatest: Float32[Tensor, "document unit"]
    """Greatest value on a counted token where the unit is active; −∞ where it never is."""
    token: Int64[Tensor, "document unit"]
    """Place of that token in its document."""

    @classmethod
    def empty(cls, source: UnitSource, units: Sequence[Unit], documents: int) -> "UnitFiring":
        """No document read yet."""
        sites = list(dict.fromkeys(unit.site for unit in units))
        places = {
            site: torch.tensor([at for at, unit in enumerate(units) if unit.site == site], dtype=torch.int64)
            for site in sites
        }
        shape = (documents, len(units))
        return cls(
            source, places, units, torch.zeros(len(units), dtype=torch.int64), torch.full(shape, -torch.inf),
            torch.zeros(shape, dtype=torch.int64),
        )  # fmt: skip

    @property
    def hooks(self) -> Mapping[Site, ReadSite]:
        """Each site with its own units."""
        indices = {
            site: torch.tensor([self.units[at].index for at in places.tolist()])
            for site, places in self.by_site.items()
        }
        return {site: partial(self._read, which) for site, which in indices.items()}

    def _read(self, which: Int64[Tensor, " unit"], batch: Batch, site_value: SiteValue) -> FiringAddend:
        read = self.source.read(site_value, which)
        active = read.active & site_value.counted[..., None]
        value, token = read.value.float().masked_fill(~active, -torch.inf).max(dim=1)
        return active.sum(dim=(0, 1)).cpu(), value.cpu(), token.cpu()

    def add(self, batch: Batch, values: dict[Site, FiringAddend]) -> None:
        """Put a batch's documents into their places."""
        rows = torch.tensor(batch.places)[:, None]
        for site, (active, greatest, token) in values.items():
            columns = self.by_site[site]
            self.active[columns] += active
            self.greatest[rows, columns] = greatest
            self.token[rows, columns] = token
