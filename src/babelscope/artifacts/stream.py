"""What a few huge units and the first tokens of documents hold of the residual stream, and how long other tokens are.

In many models one or two units of the stream, or the first token of every document, are hundreds of times as large as
the rest (massive activations, Sun et al. 2024, arXiv:2402.17762; attention sinks, arXiv:2309.17453). A mean norm, a
difference of means or a principal component is then about them. The sums here say so, and what is left without them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch

from babelscope.artifacts.stream_forms import StreamForm
from babelscope.axes import Float, Float64, Int64, Tensor
from babelscope.errors import ArtifactError, MeasurementError, SiteError

STREAM_SITES = ("embed", "resid_in", "attn_out", "resid_mid", "mlp_out", "resid_out")
"""Places whose units are those of the residual stream: first tokens and lengths are kept there."""
LARGE_UNIT = 0.3
"""A unit is massive that holds more of ordinary tokens' squared length, mean over languages, at one layer. Gemma 3
270M's largest holds .44 to .93; the bundled model's at most .25, in the last layer, read in two languages."""
LARGE_LEFT = 0.1
"""Beside a massive unit, those are left out as well that hold more of what is left, in some language."""
LARGE_FIRST = 4.0
"""First tokens are apart whose mean squared length is so many times that of the others, in some language. The reference
model's are 1.9 at most, Gemma 3 270M's 1.3 (both have BOS), those of Qwen2.5 0.5B, which has none, up to 390."""
EVEN = 10
"""In narrow streams each bar is at least so many times an even share, 1/units."""

MANTISSA = 5
"""Bits of the mantissa in a bin: 32 bins from each power of two to the next, each 1.6 to 3.1 % wide."""
LOWEST = -16
"""The first bin begins at this power of two; what is shorter is counted in it."""
BINS = 40 << MANTISSA
"""Up to 2^24; what is longer is counted in the last."""
ROUNDS = 4
"""Times that units above the bar are taken out of a token's length."""


def unit_bar(share: float, units: int) -> float:
    """A bar on one unit's share, for a stream of so many units."""
    return max(share, EVEN / units)


def ordinary_lengths(squares: Float64[Tensor, "token unit"]) -> Float64[Tensor, " token"]:
    """Each token's length without the units that alone hold more than a tenth of its squared length.

    They are taken out four times over, for the largest hide the next. `squares` is written into.
    """
    bar, total = unit_bar(LARGE_LEFT, squares.shape[1]), squares.sum(dim=1)
    for _ in range(ROUNDS):
        rows = (squares.amax(dim=1) > bar * total).nonzero()[:, 0]
        if not len(rows):
            break
        part = squares[rows]
        part.masked_fill_(part > bar * total[rows, None], 0.0)
        squares[rows], total[rows] = part, part.sum(dim=1)
    return total.sqrt()


def length_bins(lengths: Float[Tensor, " token"]) -> Int64[Tensor, " bin"]:
    """How many lengths lie in each bin: exponent and first bits of the float32, so that no rounding moves an edge."""
    return torch.bincount(bin_places(lengths), minlength=BINS)


def bin_places(lengths: Float[Tensor, " token"]) -> Int64[Tensor, " token"]:
    """The bin of each length."""
    bits = lengths.float().contiguous().view(torch.int32).long() >> (23 - MANTISSA)
    return (bits - ((LOWEST + 127) << MANTISSA)).clamp(0, BINS - 1)


def bin_edges() -> Float64[Tensor, " edge"]:
    """Where the bins begin, and where the last one ends."""
    steps = torch.arange(BINS + 1)
    part = 1 + (steps & ((1 << MANTISSA) - 1)).double() / (1 << MANTISSA)
    return part * 2.0 ** ((steps >> MANTISSA) + LOWEST).double()


def median_length(counts: Int64[Tensor, " bin"]) -> float:
    """Median of the lengths counted, drawn straight through its bin, so at most one bin's width off.

    Raises MeasurementError without a length.
    """
    total = int(counts.sum())
    if not total:
        raise MeasurementError("no ordinary token was counted; expected documents of two tokens and more; observe some")
    place = int((counts.cumsum(dim=0) * 2 < total).sum())
    edges, below = bin_edges(), float(counts[:place].sum())
    return float(edges[place] + (total / 2 - below) / int(counts[place]) * (edges[place + 1] - edges[place]))


@dataclass(frozen=True, eq=False)
class StreamSums:
    """Sums of a stream site beside those of every site, over all its recorded layers; they add up over passes."""

    first_sum: Float64[Tensor, "layer unit language"]
    """Sum of values over the first counted token of every document."""
    first_sumsq: Float64[Tensor, "layer unit language"]
    """Sum of their squares."""
    lengths: Int64[Tensor, "layer bin language"]
    """`length_bins` of `ordinary_lengths` of all other tokens."""

    def __add__(self, other: "StreamSums") -> "StreamSums":
        return StreamSums(
            self.first_sum + other.first_sum, self.first_sumsq + other.first_sumsq, self.lengths + other.lengths
        )


def add_streams(first: StreamSums | None, second: StreamSums | None) -> StreamSums | None:
    """Both together; raises ArtifactError where only one of them was kept."""
    if (first is None) != (second is None):
        raise ArtifactError(
            "one observation holds sums of first tokens and the other, of an earlier version, does not; expected both "
            "alike; observe the older one again"
        )
    return None if first is None or second is None else first + second


class StreamShares(NamedTuple):
    """How much of a layer's stream is in its largest unit and in first tokens."""

    unit: int
    """The unit that holds most of ordinary tokens' squared length, mean over languages."""
    unit_share: float
    """That mean."""
    largest_share: float
    """The largest share of one unit in one language."""
    variance_share: float
    """The largest share of one unit, mean over languages, of ordinary tokens' variance."""
    first_share: float
    """Share of all tokens' squared length that first tokens hold, in the language where it is largest."""
    first_ratio: float
    """Mean squared length of first tokens over that of the others, in the language where it is largest."""


HEAD = (
    "| site | largest unit | its share of squared length, ordinary tokens | in one language at most | "
    "of variance | first tokens' share | first tokens × |",
    "|---|--:|--:|--:|--:|--:|--:|",
)
"""Of a table whose rows are `LayerStream.row`."""


@dataclass(frozen=True, eq=False)
class LayerStream:
    """One layer of a stream site by language: all tokens, and first tokens by themselves."""

    tokens: Int64[Tensor, " language"]
    firsts: Int64[Tensor, " language"]
    """First tokens among them: one per document."""
    sum: Float64[Tensor, "language unit"]
    sumsq: Float64[Tensor, "language unit"]
    first_sum: Float64[Tensor, "language unit"]
    first_sumsq: Float64[Tensor, "language unit"]
    lengths: Int64[Tensor, "language bin"]

    @property
    def shares(self) -> StreamShares:
        """What the largest unit and first tokens hold; raises MeasurementError without an ordinary token."""
        share = self._share(())
        unit = int(share.mean(dim=0).argmax())
        variance = (self._square() / self._count() - self._mean().square())[self._some()].clamp(min=0)
        spread = (variance / variance.sum(dim=1, keepdim=True).clamp(min=1e-300)).mean(dim=0)
        first = self.first_sumsq.sum(dim=1)
        total_square = self.sumsq.sum(dim=1).clamp(min=1e-300)
        return StreamShares(
            unit,
            float(share.mean(dim=0)[unit]),
            float(share.max()),
            float(spread.max()),
            float((first / total_square).max()),
            float(self._ratio().max()),
        )

    @property
    def massive(self) -> tuple[int, ...]:
        """Units left out of the ordinary form, the largest first; none where no unit is massive."""
        units = self.sum.shape[1]
        out: list[int] = []
        if self.shares.unit_share > unit_bar(LARGE_UNIT, units):
            while True:
                share = self._share(tuple(out)).amax(dim=0)
                unit = int(share.argmax())
                if share[unit] <= unit_bar(LARGE_LEFT, units - len(out)):
                    break
                out.append(unit)
        return tuple(out)

    def form(self, requested: StreamForm) -> Literal["whole", "ordinary"]:
        """The form asked for; "auto" is ordinary where a unit is massive or first tokens are far longer than others."""
        if requested != "auto":
            return requested
        if not self.ordinary_tokens:
            return "whole"
        large = self.shares.unit_share > unit_bar(LARGE_UNIT, self.sum.shape[1])
        return "ordinary" if large or float(self._ratio().max()) > LARGE_FIRST else "whole"

    def row(self, name: str) -> str:
        """A line of a table, under `HEAD`."""
        if not self.ordinary_tokens:
            return f"| {name} | – | – | – | – | 1 | – |"
        s = self.shares
        values = (s.unit_share, s.largest_share, s.variance_share, s.first_share)
        return f"| {name} | {s.unit} | {' | '.join(f'{value:.3f}' for value in values)} | {s.first_ratio:.1f} |"

    def mean(self, language: int) -> Float64[Tensor, " unit"]:
        """Mean of a language's ordinary tokens, massive units zero; raises MeasurementError without such a token."""
        if not bool(self._some()[language]):
            raise MeasurementError(
                "a language has first tokens only; expected documents of two tokens and more; hand over longer text, "
                "or take form 'whole'"
            )
        return without_units(self._mean()[language], self.massive)

    @property
    def ordinary_tokens(self) -> int:
        """Tokens of all languages that are no first tokens."""
        return int((self.tokens - self.firsts).clamp(min=0).sum())

    def median_length(self, languages: Sequence[int]) -> float | None:
        """Median over the ordinary tokens of some languages together of `ordinary_lengths`; None without one."""
        counts = self.lengths[list(languages)].sum(dim=0)
        return median_length(counts) if bool(counts.any()) else None

    def _some(self) -> Tensor:
        return self.tokens > self.firsts

    def _count(self) -> Tensor:
        return (self.tokens - self.firsts).clamp(min=1).double()[:, None]

    def _square(self) -> Tensor:
        return (self.sumsq - self.first_sumsq).clamp(min=0)

    def _mean(self) -> Tensor:
        return (self.sum - self.first_sum) / self._count()

    def _ratio(self) -> Tensor:
        """Mean squared length of first tokens over the others', for languages that have both."""
        first = self.first_sumsq.sum(dim=1) / self.firsts.clamp(min=1)
        later = self._square().sum(dim=1) / self._count()[:, 0]
        return (first / later.clamp(min=1e-300))[self._some()]

    def _share(self, left_out: Sequence[int]) -> Tensor:
        """Each unit's share of ordinary tokens' squared length without some units, of languages that have any."""
        if not self.ordinary_tokens:
            raise MeasurementError(
                "there are first tokens only; expected documents of two tokens and more; hand over longer text"
            )
        square = without_units(self._square()[self._some()], left_out)
        return square / square.sum(dim=1, keepdim=True).clamp(min=1e-300)


def without_units(value: Float[Tensor, "*row unit"], units: Sequence[int]) -> Float[Tensor, "*row unit"]:
    """A copy with some units zero; the same where there are none."""
    if not len(units):
        return value
    value = value.clone()
    value[..., list(units)] = 0
    return value


def form_used(stream: LayerStream | None, requested: StreamForm, place: object) -> Literal["whole", "ordinary"]:
    """The form that is used at a place; raises SiteError where the ordinary one is asked for and cannot be told."""
    if stream is not None:
        return stream.form(requested)
    if requested == "ordinary":
        raise SiteError(
            f"'{place}': first tokens and lengths were not kept there; expected one of {', '.join(STREAM_SITES)}, "
            "observed by this version; observe it again, or take form 'whole'"
        )
    return "whole"
