"""Whether the passes of one `generate` follow each other as a text does; one that does not stops the run."""

import torch

from babelscope.axes import Tensor
from babelscope.errors import SteeringError
from babelscope.steering.frame import Frame
from babelscope.upstream.forward import ForwardInputs
from babelscope.upstream.names import release


class Columns:
    """Where the passes of one call of `generate` stood so far.

    A pass goes on where the last one ended, or before that where proposed tokens were dropped (prompt lookup, assisted
    decoding). Without a cache, or with one that was forgotten (longrope), it holds all columns anew, and more of them.
    A mask of columns ends where the pass does.
    Anything else means that the place of a token in its text is not known, so that prompt and answer would be mixed
    up in silence: a release that hands its cache in another way, or a pass over another text (classifier-free
    guidance).
    """

    def __init__(self) -> None:
        self._last: tuple[int, int] | None = None

    def check_beginning(self, frame: Frame) -> None:
        """Raise SteeringError where the first pass is longer than the prompt and does not begin with it."""
        if self._last is None and not begins_with_prompt(frame):
            raise SteeringError(
                f"while generating, {frame.end} columns came for a prompt of {frame.prompt_end} as the first pass, and "
                "they do not begin with it: a prompt-tuning adapter puts virtual tokens there; expected the prompt "
                "first; leave the adapter out, or hand its tokens and the prompt to the base model's generate as "
                "inputs_embeds"
            )

    def check(self, inputs: ForwardInputs, start: int, end: int) -> None:
        """Raise SteeringError unless a pass from column `start` to `end` follows the ones before."""
        mask = inputs.mask
        columns = mask.shape[1] if isinstance(mask, Tensor) and mask.ndim == 2 else end
        if columns != end:
            raise _lost(f"columns {start}–{end} came with a mask of {columns} columns; expected them to end together")
        if self._last is not None:
            first, last = self._last
            whole_again = start == 0 and end > last
            if not (whole_again or first < start <= last):
                raise _lost(
                    f"columns {start}–{end} came after {first}–{last}; expected the pass to go on at or before {last}"
                )
        self._last = (start, end)


def begins_with_prompt(frame: Frame) -> bool:
    """Whether a first pass that is longer than the prompt goes on from it, as with proposed tokens; True for others."""
    prompt = frame.prompt
    if prompt is None or frame.end <= prompt.length or frame.start >= prompt.length:
        return True
    if frame.ids is None or prompt.ids is None:
        return False
    known = prompt.ids[:, prompt.ids.shape[1] - (prompt.length - frame.start) :]
    expected = known.repeat_interleave(frame.repeats, dim=0).to(frame.device)
    return torch.equal(frame.ids[:, : expected.shape[1]], expected)


def _lost(fault: str) -> SteeringError:
    return SteeringError(
        f"while generating, {fault}: which tokens are prompt and which answer is not known with "
        f"{release('transformers')}; use no guidance_scale, or a release that babelscope was tested with; and report it"
    )
