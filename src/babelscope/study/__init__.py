"""The main job, whole: observe, identify, control, ablate, steer, report; on any model and text, resumable."""

from babelscope.study.budget import MAIN, Budget
from babelscope.study.run import run_study

__all__ = ["MAIN", "Budget", "run_study"]
