"""Running sums of one stream site by language, for passes that keep vectors of documents."""

import torch

from babelscope.artifacts.stream import BINS, LayerStream, length_bins, ordinary_lengths
from babelscope.axes import Bool, Float64, Tensor
from babelscope.recording.sums import first_tokens


class StreamTally:
    """What massive units and first tokens hold of a site, added up batch by batch."""

    def __init__(self, languages: int, units: int) -> None:
        self.tokens, self.firsts = (torch.zeros(languages, dtype=torch.int64) for _ in range(2))
        self.sums = tuple(torch.zeros(4, languages, units, dtype=torch.float64))
        """Of all tokens and their squares, of first tokens and theirs."""
        self.lengths = torch.zeros(languages, BINS, dtype=torch.int64)

    def add(
        self, exact: Float64[Tensor, "batch token unit"], counted: Bool[Tensor, "batch token"], language: int
    ) -> None:
        """Add documents of one language; values are 0 where tokens do not count."""
        first = first_tokens(counted)
        rows, every = exact[first], exact.flatten(0, 1)
        self.tokens[language] += int(counted.sum())
        self.firsts[language] += int(first.sum())
        for total, part in zip(self.sums, (every, every**2, rows, rows**2), strict=True):
            total[language] += part.sum(dim=0).cpu()
        self.lengths[language] += length_bins(ordinary_lengths(exact[counted & ~first] ** 2)).cpu()

    def layer(self) -> LayerStream:
        """The sums as one layer of a stream site."""
        total, square, first, first_square = self.sums
        return LayerStream(self.tokens, self.firsts, total, square, first, first_square, self.lengths)
