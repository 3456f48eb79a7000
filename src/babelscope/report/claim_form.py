"""A finding beside its control, and how its numbers are summed up."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from babelscope.axes import Float
from babelscope.figures import Real
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
    untested: tuple[str, ...] = ()
    """Languages in which it was measured and so little was seen, or no control fits, that there is no test."""
    counts: str = "languages"
    """What is counted: languages or pairs."""

    @property
    def verdict(self) -> str:
        """`holds` (wherever it was measured), `holds in part`, `does not hold`, `no test` or `not measured`."""
        if not self.holds and not self.fails:
            return "no test" if self.result else "not measured"
        return "does not hold" if not self.holds else "holds in part" if self.fails or self.untested else "holds"

    @property
    def tally(self) -> str:
        """How many of how many, and in how many there is no test."""
        n = len(self.holds) + len(self.fails)
        without = f", no test in {len(self.untested)}" if self.untested else ""
        return f"{len(self.holds)} of {n} {self.counts}{without}" if n else ""


def holds_and_fails(measured: Mapping[str, bool | None]) -> dict[str, Any]:
    """Three fields of a Claim; None stands for a language that was measured and has no test."""
    return {
        "holds": tuple(tag for tag, stands in measured.items() if stands),
        "fails": tuple(tag for tag, stands in measured.items() if stands is False),
        "untested": tuple(tag for tag, stands in measured.items() if stands is None),
    }


def to_array(rows: Sequence[Sequence[Real]]) -> Float[np.ndarray, "row column"]:
    """A table of numbers as float64."""
    return np.array(rows, dtype=np.float64)


def middle(values: Sequence[Real | None], say: Callable[[Real], str]) -> str:
    """Median of what is known, in words."""
    finite = [value for value in values if value is not None and known(value)]
    return say(float(np.median(finite))) if finite else "–"


def percent_range(shares: Sequence[Real | None], digits: int = 0) -> str:
    """Smallest and largest share, in per cent."""
    return f"{span_over([100 * x for x in shares if x is not None], digits)} %"
