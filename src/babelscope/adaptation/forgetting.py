"""What a training costs other languages over its course, and the share of replay that keeps the cost within a bound."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from babelscope.adaptation.adaptation_run import adapt
from babelscope.adaptation.material import Material
from babelscope.adaptation.methods import Method
from babelscope.errors import MeasurementError
from babelscope.files.work_log import hash_of, piece_of_work
from babelscope.languages import Language


class Forgetting(NamedTuple):
    """The course of one language's bits per byte while another language was trained."""

    language: Language
    before: float
    """Bits per byte of the model as it was."""
    worst: float
    """Largest rise over the course, in bits per byte; below 0 where every measurement was better than before."""
    worst_at: int
    """Tokens fed at the worst measurement."""
    last: float
    """Rise at the last measurement."""

    @property
    def recovered(self) -> float:
        """Share of the worst rise that was gone at the end; NaN where nothing ever rose."""
        return (self.worst - self.last) / self.worst if self.worst > 0 else math.nan


def forgetting_account(
    before: Mapping[Language, float], trail: Sequence[tuple[int, Mapping[Language, float]]], target: str
) -> tuple[Forgetting, ...]:
    """Each language but the target, with the worst and the last measurement of a training's trail.

    trail: (tokens fed, bits per byte by language), as `Adaptation.trail` has them. Raises MeasurementError without any.
    """
    if not trail:
        raise MeasurementError("no measurement on the way came; expected one or more; lower trail_every")
    rows = []
    for tag, start in before.items():
        if tag == target:
            continue
        rises = [(scores[tag] - start, tokens) for tokens, scores in trail]
        worst, tokens = max(rises, key=lambda rise: rise[0])
        rows.append(Forgetting(tag, start, worst, tokens, rises[-1][0]))
    return tuple(rows)


class ReplayChoice(NamedTuple):
    """The chosen share of replay, and what was measured to choose it."""

    share: float
    harms: dict[float, float]
    """Mean rise of the other languages' bits per byte by share, of all shares that were tried."""
    gains: dict[float, float]
    """Fall of the target's, by share."""
    account: tuple[Forgetting, ...]
    """Of the chosen share."""
    course: tuple[tuple[int, dict[Language, float]], ...]
    """(tokens fed, rise of each other language's bits per byte) of the chosen share."""


def choose_replay(
    prepare: Callable[[float], Material], method: Method, shares: Sequence[float], bound: float, **options: Any
) -> ReplayChoice:
    """The smallest share of replay with a gain, and a harm within `bound` bits per byte; tried from the smallest on.

    prepare: the material of a share, whose test text is what harm is measured on: give text to choose on, and not the
    text that the result is scored on. options: of `adapt`; every share has the same. Harm is the mean rise over the
    other languages, at the step that is best for the target; where that is step 0 nothing was trained, so that no harm
    is no merit, and the share is passed over.
    Raises MeasurementError where no share gains within the bound, with what each costs and gains.
    """
    harms: dict[float, float] = {}
    gains: dict[float, float] = {}
    for share in sorted(shares):
        key, measure = partial(hash_of, f"{method} replay {share}"), partial(_measured, prepare, method, share, options)
        harms[share], gains[share], rows, points = piece_of_work(key, measure)
        if harms[share] <= bound and gains[share] > 0:
            account = tuple(Forgetting(Language(tag), *numbers) for tag, *numbers in rows)
            course = [
                (fed, {row.language: rise for row, rise in zip(account, rises, strict=True)}) for fed, rises in points
            ]
            return ReplayChoice(share, harms, gains, account, tuple(course))
    costs = ", ".join(f"{harm:.4f} and {gains[share]:.4f} with {share:g}" for share, harm in harms.items())
    raise MeasurementError(
        f"no share of replay gains with a harm within {bound:g} bits per byte: harm and gain are {costs}; expected one "
        "that does; raise the bound, lower the learning rate, or give larger shares"
    )


def _measured(
    prepare: Callable[[float], Material], method: Method, share: float, options: Mapping[str, Any]
) -> list[Any]:
    """Harm, gain and the account of one share, as the log of an interrupted run keeps it."""
    material = prepare(share)
    result = adapt(material, method, **options)
    account = forgetting_account(result.before, result.trail, material.language)
    course = [[tokens, [scores[row.language] - row.before for row in account]] for tokens, scores in result.trail]
    return [result.harm(material.language), result.gain(material.language), [list(row) for row in account], course]
