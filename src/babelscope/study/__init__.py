"""The main job, whole: observe, identify, control, ablate, steer, report; on any model and text, resumable.

Here: the stages of the main job, their cost and their state on disk; and a steering sweep alone.
Imports: ablation, artifacts, controls, corpus, evaluation, figures, files, languages, models, neurons, recording,
report, runs, sites, steering.
"""

from typing import TYPE_CHECKING

from babelscope.lazy_imports import lazy_names

if TYPE_CHECKING:
    from babelscope.study.budget import MAIN, Budget
    from babelscope.study.run import run_study

__all__ = ["MAIN", "Budget", "run_study"]

__getattr__, __dir__ = lazy_names(__name__)
