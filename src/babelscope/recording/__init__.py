"""One streamed pass of text through a model, into sums; raw activations are never kept."""

from babelscope.recording.observing import observe
from babelscope.recording.reading import ObservationPlan, plan_observation

__all__ = ["ObservationPlan", "observe", "plan_observation"]
