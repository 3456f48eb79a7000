"""Learning rate by step: linear warm-up, then a cosine down to a share of the peak."""

import math
from dataclasses import dataclass

from babelscope.errors import MeasurementError, refuse_no_number


@dataclass(frozen=True)
class LearningRate:
    """Peak rate and its course over the steps of a run."""

    peak: float
    steps: int
    warmup: float = 0.05
    """Share of the steps in which the rate rises in a line from peak / warm-up steps to the peak."""
    final: float = 0.1
    """Share of the peak reached at the last step."""

    def __post_init__(self) -> None:
        refuse_no_number({"steps": self.steps}, MeasurementError, whole=True)
        refuse_no_number({"peak": self.peak, "warmup": self.warmup, "final": self.final}, MeasurementError)
        if self.steps < 1 or not 0 < self.peak < math.inf or not (0 <= self.warmup < 1 and 0 <= self.final <= 1):
            raise MeasurementError(
                f"{self} came; expected at least 1 step, a finite peak above 0, warm-up in [0, 1) and a final share in "
                "[0, 1]; correct them"
            )

    def at(self, step: int) -> float:
        """Rate of the step-th update, from 0."""
        rising = round(self.warmup * self.steps)
        if step < rising:
            return self.peak * (step + 1) / rising
        progress = (step - rising) / max(1, self.steps - 1 - rising)
        return self.peak * (self.final + (1 - self.final) * (1 + math.cos(math.pi * progress)) / 2)
