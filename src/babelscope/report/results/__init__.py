"""The numbers of a study as types: `results.json` is filled from them, read back into them, and described by them."""

from typing import TYPE_CHECKING

from babelscope.lazy_imports import lazy_names

if TYPE_CHECKING:
    from babelscope.report.results.ablation_record import AblatedPart, Ablation, HarmInUnit, HarmInUnits, SetParts
    from babelscope.report.results.steering_record import Steering, SteeringSample, SweepRow
    from babelscope.report.results.study_results import Results, read_results

__all__ = [
    "AblatedPart",
    "Ablation",
    "HarmInUnit",
    "HarmInUnits",
    "Results",
    "SetParts",
    "Steering",
    "SteeringSample",
    "SweepRow",
    "read_results",
]

__getattr__, __dir__ = lazy_names(__name__)
