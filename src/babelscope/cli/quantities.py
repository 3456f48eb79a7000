"""Every kind of number on the command line, with its bounds: one outside them is refused before anything is read."""

import math
from dataclasses import dataclass
from typing import Annotated

from tyro.conf import arg

from babelscope.errors import UsageError


@dataclass(frozen=True)
class Between:
    """The least and the greatest value of a flag, both allowed."""

    low: int | float
    high: int | float
    above: bool = False
    """Whether `low` itself is not allowed."""
    infinite: bool = False
    """Whether infinity is allowed too."""

    def check(self, flag: str, value: int | float) -> None:
        """Raise UsageError for a number outside the bounds, and for NaN."""
        in_range = self.low <= value <= self.high and not (self.above and value == self.low)
        if not in_range and not (self.infinite and value == math.inf):
            raise UsageError(f"{flag} {number_text(value)} came; expected {self.described()}; correct it")

    def described(self) -> str:
        """The bounds in words."""
        kind = "a number above" if self.above else "a number from"
        ends = f"{number_text(self.low)} {'and at most' if self.above else 'to'} {number_text(self.high)}"
        return f"{kind} {ends}{', or inf' if self.infinite else ''}"


def number_text(number: int | float) -> str:
    """A number as a person writes it; of a very long one, its ends."""
    text = f"{number:g}" if isinstance(number, float) else str(number)
    return text if len(text) <= 24 else f"{text[:10]}…{text[-6:]} ({len(text)} digits)"


Seed = Annotated[int, Between(0, 2**31 - 1), arg(help="of everything random; the same seed gives the same result.")]
"""Below 2^31: numpy takes 32 bits, and streams of their own are counted up from it."""
Minutes = Annotated[float, Between(0, 1_000_000, above=True)]
Layer = Annotated[int, Between(0, 9_999)]
Count = Annotated[int, Between(1, 10_000_000)]
"""Steps, prompts, sentences, features: at least one."""
CountOrNone = Annotated[int, Between(0, 10_000_000)]
"""A count where 0 has a meaning that the flag says."""
Draws = Annotated[int, Between(1, 100_000)]
Resamples = Annotated[int, Between(2, 100_000)]
Shards = Annotated[int, Between(1, 1_024)]
"""Each holds counts of its own for every neuron and language."""
TokenAmount = Annotated[int, Between(1, 10**12)]
TokensOrAll = Annotated[int, Between(0, 10**12)]
"""0 means all text."""
TokensOrNone = Annotated[int, Between(0, 10**12)]
"""0 leaves out what would read them."""
RowLength = Annotated[int, Between(2, 1_000_000)]
"""Tokens of a row: the first token is predicted from nothing, so one is too few."""
NewTokens = Annotated[int, Between(1, 100_000)]
PeakRate = Annotated[float, Between(0, 1_000, above=True)]
Decay = Annotated[float, Between(0, 1_000)]
Share = Annotated[float, Between(0, 1)]
PositiveShare = Annotated[float, Between(0, 1, above=True)]
PartialShare = Annotated[float, Between(0, 0.99)]
"""A share that leaves something over."""
Ratio = Annotated[float, Between(0, 10**9, infinite=True)]
Length = Annotated[float, Between(0, 10**9, above=True)]
MomentWeight = Annotated[float, Between(0, 10**6, above=True)]
"""Of a second moment, in numbers of neurons."""
SteeringStrength = Annotated[float, Between(-(10**6), 10**6)]
Temperature = Annotated[float, Between(0, 1_000)]
Port = Annotated[int, Between(1, 65_535)]
