"""A study that fits into some minutes: its amounts made smaller by the pace of this machine, none so as to mislead."""

import logging
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from typing import Any

from babelscope.errors import MeasurementError
from babelscope.runs import duration
from babelscope.study.budget import FEWEST, FLAG, PlannedBudget
from babelscope.study.cost import Pace, stage_costs
from babelscope.study.job import StudyInputs

log = logging.getLogger(__name__)
SMALLEST = {
    "observe_tokens": 4_000,
    "choose_tokens": 100,
    "script_documents": 40,
    "ablate_tokens": 250,
    "part_tokens": 100,
    "dev_prompts": 4,
    "test_prompts": 10,
    "random_prompts": 5,
}
"""Amounts below which intervals say nothing; an amount that was asked for smaller stays as it is. Draws are never cut:
a rank among fewer cannot reach .05."""
SHARES = tuple(share / 100 for share in range(100, 9, -5))
"""Of what was asked for; the largest that fits is taken."""


def cut_budget(budget: PlannedBudget, share: float) -> PlannedBudget:
    """A share of every amount, none below the smallest that still says something."""
    amounts = {name: getattr(budget, name) for name in SMALLEST}
    return replace(
        budget,
        **{name: max(min(amount, SMALLEST[name]), round(share * amount)) for name, amount in amounts.items()},
    )


def fitting_budget(job: StudyInputs, pace: Pace, minutes: float, *, steering: bool) -> PlannedBudget:
    """The budget with the largest share of its amounts whose stages take no longer than some minutes.

    Opening the model and writing the page are not counted.
    Raises MeasurementError where even the smallest amounts take longer.
    """
    seconds = 0.0
    for share in SHARES:
        budget = cut_budget(job.budget, share)
        seconds = sum(map(pace.seconds, stage_costs(job._replace(budget=budget), steering)))
        if seconds <= 60 * minutes:
            if share < 1:
                before, after = asdict(job.budget), asdict(budget)
                cut = [f"{FLAG.get(name, name)} {after[name]:,}" for name in SMALLEST if after[name] != before[name]]
                log.info("%s", f"to fit into {minutes:g} min: {', '.join(cut)}")
            return budget
    raise MeasurementError(
        f"{minutes:g} minutes came; the smallest study takes about {duration(seconds)} here; give more, fewer "
        "languages, or leave steering out"
    )


def planned_budget(plan: Mapping[str, Any] | None) -> PlannedBudget | None:
    """The budget in the plan of an interrupted study, so that no pace is asked again; None where there is none."""
    amounts = None if plan is None else plan.get("budget")
    if not isinstance(amounts, dict) or {*amounts} != {field.name for field in fields(PlannedBudget)}:
        return None
    given: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in amounts.items()
    }
    # A damaged plan is no budget: what is timed anew then differs from it, which is refused in one line.
    whole = all(type(given[name]) is int for name in FEWEST)
    lists = all(isinstance(given[name], tuple) for name in ("layers", "strengths"))
    return PlannedBudget(**given) if whole and lists else None
