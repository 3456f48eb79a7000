"""One streamed pass of text through a model, into sums; raw activations are never kept.

Here: the one road of text through a model, and the watchers on it.
Imports: artifacts, corpus, files, languages, models, progress, sites, upstream.
"""

from typing import TYPE_CHECKING

from babelscope.lazy_imports import lazy_names

if TYPE_CHECKING:
    from babelscope.recording.observe_pass import observe
    from babelscope.recording.pass_settings import ObservationPlan, plan_observation

__all__ = ["ObservationPlan", "observe", "plan_observation"]

__getattr__, __dir__ = lazy_names(__name__)
