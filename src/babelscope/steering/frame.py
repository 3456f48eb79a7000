"""Which tokens a forward pass holds: prompt or generated, pad or real, and where in its row each one stands."""

from functools import cached_property
from typing import Any, NamedTuple

import torch

from babelscope.artifacts import Condition, Gate, Schedule
from babelscope.axes import Bool, Int, Int64, Tensor
from babelscope.errors import ArtifactError, SteeringError
from babelscope.steering.clean import CleanPass
from babelscope.upstream.forward import ForwardInputs


class PromptShape(NamedTuple):
    """What one call of `generate` was given."""

    rows: int
    """Rows before beams and return sequences multiply them."""
    length: int
    """Columns of the prompt, pads included; later columns are generated."""
    mask: Int64[Tensor, "batch token"] | None
    """1 for real tokens; None where none was passed."""
    ids: Int[Tensor, "batch token"] | None = None
    """Of the prompt, or of its last columns where it goes on from a cache; None where embeddings came."""

    @classmethod
    def read(cls, inputs: ForwardInputs) -> "PromptShape":
        """From what `generate` was given."""
        ids_or_vectors, mask = inputs.given, inputs.mask
        # Without any input, generate starts from one BOS.
        rows, length = (1, 1) if ids_or_vectors is None else ids_or_vectors.shape[:2]
        # Going on from a cache, the ids may be the new ones alone; the mask is always whole.
        ids = inputs.ids if inputs.embeds is None else None
        return cls(rows, length if mask is None else max(length, mask.shape[1]), mask, ids)


class Frame:
    """One forward pass, read from what the model's body is given. Tensors are made when first asked for.

    Columns count from the start of the row, pads and cached tokens included, so phases and steps come out the same
    with and without a cache, and however a prompt is cut into chunks.
    """

    def __init__(self, inputs: ForwardInputs, prompt: PromptShape | None) -> None:
        ids_or_vectors = inputs.given
        if ids_or_vectors is None:
            raise SteeringError("a pass came with neither ids nor embeddings; expected one of them; call the model")
        self.ids: Int[Tensor, "batch token"] | None = inputs.ids
        self.batch, self.tokens = ids_or_vectors.shape[:2]
        self.device = ids_or_vectors.device
        self.start = inputs.cached
        self.end = self.start + self.tokens
        self.prompt = prompt
        self.prompt_end = self.end if prompt is None else prompt.length
        self.rows = self.batch if prompt is None else prompt.rows
        if self.batch % self.rows:
            raise ArtifactError(f"a pass of {self.batch} rows came for {self.rows} prompts; expected a multiple")
        self.repeats = self.batch // self.rows
        self._attention = inputs.mask
        self.shared: dict[Any, Any] = {}
        """Coefficients of this pass, for operations that share gate, schedule and strength."""
        self.clean: CleanPass | None = None
        """The prompt without steering, where an operation asked for it."""

    @property
    def prompt_tokens(self) -> int:
        """How many of this pass's columns are prompt; they come first."""
        return min(max(self.prompt_end - self.start, 0), self.tokens)

    @cached_property
    def _mask(self) -> Bool[Tensor, "batch column"] | None:
        """Real tokens from the first column to the last of this pass; None where no token is known to be a pad."""
        mask = self._attention
        if mask is None:
            return None
        if not isinstance(mask, Tensor) or mask.ndim != 2:
            # A compilable cache comes with a mask already shaped for attention; go by the one generate was given.
            if self.prompt is None or self.prompt.mask is None:
                return None
            mask = self.prompt.mask.repeat_interleave(self.repeats, dim=0)
        mask = mask[:, : self.end].to(self.device, torch.bool)
        # A prompt's mask ends where generated tokens begin.
        missing = self.end - mask.shape[1]
        return torch.cat([mask, mask.new_ones(mask.shape[0], missing)], dim=1) if missing else mask

    @property
    def real(self) -> Bool[Tensor, "batch token"] | None:
        """False at pads; None where this pass has none."""
        generated_only = self.prompt is not None and self.prompt_tokens == 0
        return None if generated_only or self._mask is None else self._mask[:, self.start :]

    @cached_property
    def position(self) -> Int64[Tensor, "#batch token"]:
        """Place of each token among its row's real tokens."""
        if self._mask is None:
            return torch.arange(self.start, self.end, device=self.device)[None]
        return self._mask.long().cumsum(dim=1)[:, self.start :] - 1

    @cached_property
    def prompt_size(self) -> Int64[Tensor, "#batch 1"] | int:
        """Real tokens of each row's prompt."""
        if self.prompt is not None and self.prompt.mask is not None:
            sizes = self.prompt.mask.long().sum(dim=1, keepdim=True)
            return sizes.repeat_interleave(self.repeats, dim=0).to(self.device)
        if self._mask is None:
            return self.prompt_end
        real_prompt = self._mask[:, : self.prompt_end]
        return real_prompt.long().sum(dim=1, keepdim=True) + max(0, self.prompt_end - self.end)

    def factors(self, gate: Gate, schedule: Schedule) -> list[float]:
        """Factor on the strength at each column, from phase and schedule; a list of one where all columns share it."""
        prompt_columns = self.prompt_tokens
        first = self.start + prompt_columns - self.prompt_end + 1
        before = schedule.factor(0) if gate.phase != "generated" else 0.0
        if gate.phase == "prompt":
            after = [0.0] * (self.tokens - prompt_columns)
        elif schedule.course == "constant":
            after = [1.0] * (self.tokens - prompt_columns)
        else:
            after = [schedule.factor(step) for step in range(first, first + self.tokens - prompt_columns)]
        factors = [before] * prompt_columns + after
        return factors[:1] if len(set(factors)) == 1 else factors

    def selected(self, gate: Gate, ordinary: Bool[Tensor, " vocab"] | None) -> Bool[Tensor, "#batch token"] | None:
        """True at tokens that are no pads, and open by the gate's positions and special tokens; None where all are.

        ordinary: False for the ids of special tokens; prompts given as embeddings have no ids and none is left out.
        """
        result = None
        for mask in (self.real, self.ordinary(gate, ordinary), self.between(gate)):
            if mask is not None:
                result = mask if result is None else result & mask
        return result

    def ordinary(self, gate: Gate, ordinary: Bool[Tensor, " vocab"] | None) -> Bool[Tensor, "batch token"] | None:
        """False at special tokens, where they are known and the gate leaves them out."""
        if ordinary is None or self.ids is None or gate.skip_special is False:
            return None
        return ordinary.to(self.device)[self.ids]

    def between(self, gate: Gate) -> Bool[Tensor, "#batch token"] | None:
        """True at the gate's positions; None where it names none."""
        result = None
        for mask in self._between(*gate.positions) if gate.positions is not None else ():
            result = mask if result is None else result & mask
        return result

    def open_phase(self, gate: Gate) -> list[bool]:
        """Whether the gate's phase holds, by column."""
        prompt_columns = self.prompt_tokens
        return [gate.phase != "generated"] * prompt_columns + [gate.phase != "prompt"] * (self.tokens - prompt_columns)

    def meeting(self, condition: Condition, ordinary: Tensor | None) -> Bool[Tensor, "batch 1"]:
        """True at rows whose prompt meets the condition, beams and return sequences after their row."""
        if self.clean is None:
            raise SteeringError("a condition was met by no clean pass over the prompt; call generate, or the model")
        return self.clean.meets(condition, ordinary).repeat_interleave(self.repeats, dim=0)[:, None]

    def _between(self, start: int | None, stop: int | None) -> list[Tensor]:
        size = self.prompt_size
        bounds = [None if bound is None else bound if bound >= 0 else size + bound for bound in (start, stop)]
        masks = [] if bounds[0] is None else [self.position >= bounds[0]]
        return masks if bounds[1] is None else [*masks, self.position < bounds[1]]
