"""A finding beside its control, and how its numbers are summed up."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from babelscope.figures import Number
from babelscope.report.wording import known, span_over

LEVEL = 0.05 + 1e-9
"""Largest p-value that counts; the rank p of 19 draws is exactly 1/20."""


@dataclass(frozen=True)
class Claim:
    """A finding beside its control."""

    title: str
    """The finding, as a sentence that can be false."""
    control: str
    """What it was compared with, and when it counts as holding in a language."""
    result: str
    """Estimate with its interval; empty where not measured."""
    holds: tuple[str, ...] = ()
    """Languages in which it holds."""
    fails: tuple[str, ...] = ()
    """Languages in which it was tested and does not hold."""
    counts: str = "languages"
    """What is counted: languages or pairs."""

    @property
    def verdict(self) -> str:
        """`holds`, `holds in part`, `does not hold`, `no test` (measured, without an interval) or `not measured`."""
        if not self.holds and not self.fails:
            return "no test" if self.result else "not measured"
        return "holds" if not self.fails else "holds in part" if self.holds else "does not hold"

    @property
    def tally(self) -> str:
        """How many of how many."""
        n = len(self.holds) + len(self.fails)
        return f"{len(self.holds)} of {n} {self.counts}" if n else ""


def holds_and_fails(tested: Mapping[str, bool]) -> dict[str, Any]:
    """The two fields of a Claim."""
    return {
        "holds": tuple(tag for tag, stands in tested.items() if stands),
        "fails": tuple(tag for tag, stands in tested.items() if not stands),
    }


def middle(values: Sequence[Number | None], say: Callable[[Number], str]) -> str:
    """Median of what is known, in words."""
    finite = [value for value in values if value is not None and known(value)]
    return say(float(np.median(finite))) if finite else "–"


def percent_range(shares: Sequence[Number | None], digits: int = 0) -> str:
    """Smallest and largest share, in per cent."""
    return f"{span_over([100 * x for x in shares if x is not None], digits)} %"
