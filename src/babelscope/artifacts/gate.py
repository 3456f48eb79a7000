"""Where and when an operation acts: rows, tokens, a condition on the prompt, and strength over decode steps."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch

from babelscope.axes import Float32, Tensor
from babelscope.errors import SteeringError, refuse_no_number
from babelscope.sites import Site

Phase = Literal["prompt", "generated", "both"]
Course = Literal["constant", "first", "every", "ramp"]
Pool = Literal["mean", "last"]


def one_of(value: Any, kind: Any, what: str) -> None:
    """Raise SteeringError unless the value is one of the words of a Literal."""
    if value not in get_args(kind):
        raise SteeringError(f"{what} {value!r} is unknown; expected one of {', '.join(get_args(kind))}; correct it")


def numbers_of(numbers: Any, what: str) -> tuple[int | None, ...] | None:
    """A sequence of whole numbers, or of None, as a tuple; raises SteeringError for anything else."""
    if numbers is None:
        return None
    if not isinstance(numbers, Sequence) or isinstance(numbers, str):
        raise SteeringError(f"gate {what} {numbers!r} came; expected numbers in a tuple; write ({numbers!r},)")
    given = {f"gate {what}[{place}]": number for place, number in enumerate(numbers) if number is not None}
    refuse_no_number(given, SteeringError, whole=True)
    return tuple(numbers)


@dataclass(frozen=True, eq=False)
class Condition:
    """A question about each row's prompt: does its cosine with a direction reach a threshold?

    cos(x, v) ≥ threshold, or < threshold with `above=False`, where x is the site's value without any steering, pooled
    over the row's prompt. It is asked once per call of `generate` (or a pass outside it), for every row by itself, and
    holds for all tokens of the row.
    Source: conditional activation steering, arXiv:2409.05907. There x is compared with tanh of its projection on v,
    which drops the sign; here the cosine is signed, the prompt is read before the first token is steered, and every
    row has its own answer.
    Raises SteeringError for a vector or threshold that is not finite, a zero vector, and units left out at which the
    vector is not zero.
    """

    site: Site
    vector: Float32[Tensor, " unit"]
    threshold: float | int
    above: bool = True
    pool: Pool = "mean"
    """Mean over the prompt's tokens (pads out, special tokens too where the tokenizer is known), or its last token."""
    form: Literal["whole", "ordinary"] = "whole"
    """whole: x is of every token and unit; ordinary: the mean is without each row's first token (a row of one token
    counts whole), and x is zero at massive units (`left_out`)."""
    left_out: tuple[int, ...] = ()
    """Massive units, the largest first."""

    def __post_init__(self) -> None:
        one_of(self.pool, Pool, "pool")
        vector = self.vector
        if vector.ndim != 1 or vector.dtype != torch.float32 or not bool(torch.isfinite(vector).all() & vector.any()):
            raise SteeringError(f"condition at '{self.site}': expected one finite float32 row that is not zero")
        if not math.isfinite(self.threshold):
            raise SteeringError(f"condition at '{self.site}': threshold {self.threshold} came; expected a finite one")
        one_of(self.form, Literal["whole", "ordinary"], "form")
        if any(not 0 <= unit < len(vector) for unit in self.left_out) or bool(vector[list(self.left_out)].any()):
            raise SteeringError(
                f"condition at '{self.site}': left_out {self.left_out}; expected units of 0–{len(vector) - 1} at which "
                "the vector is zero"
            )


@dataclass(frozen=True)
class Gate:
    """Which rows and tokens an operation touches; pads are never touched. Its sequences are kept as tuples.

    Tokens count from each row's first real token, and generated ones go on counting after the prompt.
    """

    phase: Phase = "both"
    """`prompt`, `generated`, or `both`. Outside `generate` a pass without a cache is prompt, and what goes on from that
    cache is generated."""
    positions: Sequence[int | None] | None = None
    """Start and stop, as in a slice. Negative numbers count back from the end of the prompt: (-1, None) is the last
    prompt token and all that follow it, (0, 4) the first four tokens."""
    rows: Sequence[int] | None = None
    """Rows of the batch, from 0, as handed to the model (before beams); None means every row."""
    skip_special: bool | None = None
    """Leave out the tokenizer's special tokens, those of the chat template among them. None: leave them out where
    `steer` was given the tokenizer. True without a tokenizer is refused."""
    condition: Condition | None = None
    """Only rows whose prompt meets it; None means every row."""

    def __post_init__(self) -> None:
        one_of(self.phase, Phase, "phase")
        # A list is taken as the tuple of its numbers: gates are compared and hashed.
        object.__setattr__(self, "positions", numbers_of(self.positions, "positions"))
        object.__setattr__(self, "rows", numbers_of(self.rows, "rows"))
        if self.positions is not None and len(self.positions) != 2:
            raise SteeringError(f"gate positions {self.positions} came; expected start and stop, None where it is open")
        if self.rows is not None and (not self.rows or None in self.rows or min(self.rows) < 0):
            raise SteeringError(f"gate rows {self.rows} came; expected one or more rows counted from 0; correct them")


@dataclass(frozen=True)
class Schedule:
    """How strength changes over decode steps: a factor on it.

    Step t is the pass that chooses output token t: all prompt tokens are step 0, the i-th generated token (from 0),
    once fed back, is step i + 1. The factor depends on the token alone, so results do not depend on the cache.
    """

    course: Course = "constant"
    """constant: 1. first: 1 for steps < `steps`, then 0. every: 1 where step is a multiple of `steps`, else 0.
    ramp: from `start` at step 0 straight to `end` at step `steps`, and `end` after."""
    steps: int = 1
    start: float = 1.0
    end: float = 0.0

    def __post_init__(self) -> None:
        one_of(self.course, Course, "schedule")
        if self.steps < 1 or not (math.isfinite(self.start) and math.isfinite(self.end)):
            raise SteeringError(f"schedule {self}; expected at least 1 step and finite factors; correct it")

    @classmethod
    def first(cls, steps: int) -> "Schedule":
        """Full strength for the first steps, nothing after."""
        return cls("first", steps)

    @classmethod
    def every(cls, steps: int) -> "Schedule":
        """Full strength at step 0 and every so many steps, nothing between."""
        return cls("every", steps)

    @classmethod
    def ramp(cls, steps: int, *, start: float = 1.0, end: float = 0.0) -> "Schedule":
        """From one factor to another in so many steps."""
        return cls("ramp", steps, start, end)

    def factor(self, step: int) -> float:
        """Factor on the strength at a decode step."""
        match self.course:
            case "first":
                return float(step < self.steps)
            case "every":
                return float(step % self.steps == 0)
            case "ramp":
                return self.start + (self.end - self.start) * min(1.0, step / self.steps)
            case _:
                return 1.0
