"""What decides a training run, and what one of its steps came to."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

from babelscope.errors import MeasurementError
from babelscope.subnetworks.packing import Mixture
from babelscope.subnetworks.schedule import LearningRate


class Point(NamedTuple):
    """Training so far, after one step."""

    step: int
    """Updates done."""
    loss: float
    """Nats a scored token, mean over the step."""
    grad_norm: float
    learning_rate: float
    tokens: int
    """Tokens fed since the start, all languages."""
    bits_per_byte: float | None
    """Held-out, of the target language; None where it was not measured at this step."""
    objective: Literal["text", "pairs"] = "text"
    """What the step trained; of pairs the loss is of their contrast."""


@dataclass(frozen=True)
class Plan:
    """Everything that decides what a run computes, besides the student and the text."""

    rate: LearningRate
    rows_per_step: int
    accumulation: int = 1
    """Forward passes a step is cut into."""
    clip: float = 1.0
    """Longest gradient; longer ones are scaled to it. inf: none is."""
    evaluate_every: int = 50
    """Steps between two held-out measurements."""
    patience: int | None = None
    """Measurements without a new best after which the run ends; None: never."""

    def __post_init__(self) -> None:
        fits = self.accumulation >= 1 and self.rows_per_step % self.accumulation == 0 and self.rows_per_step >= 1
        if not fits or not self.clip > 0 or self.evaluate_every < 1:
            raise MeasurementError(
                f"{self.rows_per_step} rows per step in {self.accumulation} parts, clip {self.clip}, a measurement "
                f"every {self.evaluate_every} steps; expected parts that divide the rows, and values above 0; "
                "correct them"
            )


def plan_json(plan: Plan, mixture: Mixture) -> dict[str, Any]:
    """What decides a run, as JSON: for fingerprints and cards."""
    replay: Sequence[Any] = mixture.replay
    return {
        **asdict(plan),
        "max_length": mixture.target.length,
        "seed": mixture.target.seed,
        "replay_share": mixture.share,
        "replay": [text.language for text in replay],
    }
