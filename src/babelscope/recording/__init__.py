"""One streamed pass of text through a model, into sums; raw activations are never kept."""

from babelscope.recording.passes import ObservationPlan, observe, plan_observation

__all__ = ["ObservationPlan", "observe", "plan_observation"]
