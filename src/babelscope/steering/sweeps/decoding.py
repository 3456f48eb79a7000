"""How answers are drawn, whatever settings of generation a checkpoint came with."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from babelscope.errors import MeasurementError
from babelscope.models.plain import CausalModel
from babelscope.upstream.generation import pin_generation


@dataclass(frozen=True)
class Decoding:
    """How answers are drawn; equal for steered, native and baseline answers."""

    new_tokens: int = 32
    """Tokens of every answer to a plain prompt: the end of text is not drawn before. In a chat, tokens at most: the
    answer ends where the model ends its turn."""
    temperature: float = 0.8
    """0 takes the likeliest token."""
    seed: int = 0
    batch_size: int = 128

    def __post_init__(self) -> None:
        if self.new_tokens < 1 or self.batch_size < 1 or not 0 <= self.temperature < float("inf"):
            raise MeasurementError(
                f"new_tokens {self.new_tokens}, batch_size {self.batch_size}, temperature {self.temperature} came; "
                "expected 1 or more of the first two and a temperature of 0 or more; correct them"
            )

    def settings(self, ends: Sequence[int] = ()) -> dict[str, Any]:
        """Keywords of `generate`; ends: ids that end an answer, without which all answers have the same length."""
        sampled = {"temperature": self.temperature, "top_k": 0, "top_p": 1.0} if self.temperature > 0 else {}
        ended = {"eos_token_id": list(ends)} if ends else {"min_new_tokens": self.new_tokens}
        return {"max_new_tokens": self.new_tokens, "do_sample": self.temperature > 0, **sampled, **ended}


def overridden_settings(model: CausalModel, decoding: Decoding) -> dict[str, Any]:
    """The settings of generation that came with a checkpoint and that its answers here are not drawn by, with values.

    Such as `repetition_penalty`, `num_beams` or `suppress_tokens` of a generation_config.json. Empty where it says
    nothing that differs. The ids that end a text or turn stay the checkpoint's, so they are never named.
    """
    return pin_generation(model, decoding.settings()).set_aside
