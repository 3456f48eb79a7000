"""Running sums of one stream site by language, for walks that keep vectors of documents."""

from typing import NamedTuple

import torch

from babelscope.artifacts.stream import BINS, LayerStream, length_bins, ordinary_lengths
from babelscope.axes import Float64, Int64, Tensor
from babelscope.corpus import Batch
from babelscope.recording.site_sums import first_tokens
from babelscope.recording.watchers import ReadSite, SiteValue
from babelscope.sites import Site


class BatchStream(NamedTuple):
    """What one batch adds."""

    firsts: int
    sums: tuple[Float64[Tensor, " unit"], ...]
    """Of all tokens and their squares, of first tokens and theirs."""
    lengths: Int64[Tensor, " bin"]


class StreamTally:
    """What massive units and first tokens hold of a site, added up batch by batch."""

    def __init__(self, site: Site, languages: int, units: int) -> None:
        self.site = site
        self.hooks: dict[Site, ReadSite] = {site: self.read}
        self.tokens, self.firsts = (torch.zeros(languages, dtype=torch.int64) for _ in range(2))
        self.sums = tuple(torch.zeros(4, languages, units, dtype=torch.float64))
        """Of all tokens and their squares, of first tokens and theirs."""
        self.lengths = torch.zeros(languages, BINS, dtype=torch.int64)

    def read(self, batch: Batch, site_value: SiteValue) -> BatchStream:
        """What a batch adds."""
        exact, first = site_value.value.double() * site_value.counted[..., None], first_tokens(site_value.counted)
        rows, all_tokens = exact[first], exact.flatten(0, 1)
        return BatchStream(
            firsts=int(first.sum()),
            sums=tuple(part.sum(dim=0).cpu() for part in (all_tokens, all_tokens**2, rows, rows**2)),
            lengths=length_bins(ordinary_lengths(exact[site_value.counted & ~first] ** 2)).cpu(),
        )

    def add(self, batch: Batch, values: dict[Site, BatchStream]) -> None:
        """Add a batch of one language."""
        part, language = values[self.site], batch.documents[0].language
        self.tokens[language] += int(batch.counted.sum())
        self.firsts[language] += part.firsts
        for total, added in zip(self.sums, part.sums, strict=True):
            total[language] += added
        self.lengths[language] += part.lengths

    def layer(self) -> LayerStream:
        """The sums as one layer of a stream site."""
        total, square, first, first_square = self.sums
        return LayerStream(self.tokens, self.firsts, total, square, first, first_square, self.lengths)
