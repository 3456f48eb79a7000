"""What a steering recipe changes besides its target: other languages, prompts it should not touch, things to copy."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from babelscope.artifacts import Operation
from babelscope.axes import Tensor
from babelscope.corpus import Texts
from babelscope.errors import MeasurementError
from babelscope.evaluation import CopiedShares, HeldOut, Measured, bootstrap, document_losses, kept_shares
from babelscope.languages import Language
from babelscope.models import layout_of
from babelscope.models.measuring import run_pass
from babelscope.models.plain import CausalModel
from babelscope.models.text_length import text_length
from babelscope.progress import with_progress
from babelscope.steering import steer
from babelscope.steering.engine import Operations, flat_operations
from babelscope.steering.sweeps.steered_answers import Answer
from babelscope.steering.sweeps.steering_prompts import Prompt, left_pad

Recipe = Operations


class LanguageEffect(NamedTuple):
    """Held-out text of one language with a recipe off and on."""

    off: float
    """Bits a byte of the model as it is."""
    on: float
    """Bits a byte under the recipe."""
    change: Measured
    """on − off; the interval redraws documents, the same for both."""
    perplexity_ratio: Measured
    """exp(nats per token, on − off)."""


def acting_on_text(recipe: Recipe) -> list[Operation]:
    """The recipe as it meets the text it would have written.

    In a plain pass every token is prompt, at step 0, so an operation for generated tokens alone would never act: its
    phase becomes `both`. A schedule that fades stands at its beginning.
    """
    return [
        replace(operation, gate=replace(operation.gate, phase="both"))
        if operation.gate.phase == "generated"
        else operation
        for operation in flat_operations(recipe)
    ]


def language_effects(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    recipe: Recipe,
    texts: Texts,
    *,
    max_length: int | None = None,
    max_tokens: int | None = None,
    resamples: int = 1000,
    seed: int = 0,
    progress: bool = False,
) -> dict[Language, LanguageEffect]:
    """Loss on held-out text of every language given, without and with the recipe on all of it (`acting_on_text`).

    The target's own row shows what steering costs there; all other rows are side effects, were it left on. Text in
    rows that a gate leaves out is not steered: see `untouched_prompts`.
    Raises MeasurementError for an operation gated to rows: rows of text are not rows of a batch of prompts.
    """
    operations = acting_on_text(recipe)
    if any(operation.gate.rows is not None for operation in operations):
        raise MeasurementError("an operation is gated to rows; expected one for any text; take the gate off")
    effects = {}
    length = text_length(layout_of(model), max_length)
    prepared = HeldOut.prepare(tokenizer, texts, max_length=length, max_tokens=max_tokens)
    for held_out in with_progress(prepared, unit="language", desc="loss on text", shown=progress):
        off = document_losses(model, held_out)
        with steer(model, operations, tokenizer=tokenizer):
            on = document_losses(model, held_out)
        nats = [losses.nats.numpy() for losses in (off, on)]
        size, tokens = held_out.n_bytes.numpy().astype(float), held_out.tokens.numpy().astype(float)

        def change(w: np.ndarray, nats: list[np.ndarray] = nats, size: np.ndarray = size) -> float:
            return float(w @ (nats[1] - nats[0]) / math.log(2) / (w @ size))

        def ratio(w: np.ndarray, nats: list[np.ndarray] = nats, tokens: np.ndarray = tokens) -> float:
            return math.exp(w @ (nats[1] - nats[0]) / (w @ tokens))

        draw_settings = {"n": len(size), "resamples": resamples, "seed": seed}
        effects[held_out.language] = LanguageEffect(
            off.bits_per_byte, on.bits_per_byte, bootstrap(change, **draw_settings), bootstrap(ratio, **draw_settings)
        )
    return effects


class Untouched(NamedTuple):
    """Prompts that a recipe should leave as they are."""

    n: int
    beside: float
    """Share whose logits are bit for bit the same in a batch where other rows are steered."""
    after: float
    """Share whose logits are bit for bit the same once steering has ended."""
    largest_difference: float
    """Of any logit in those rows. With experts, steered rows change which rows are multiplied together: rounding."""
    steered_difference: float
    """Largest difference in the steered rows: 0 would mean that nothing was steered, and nothing shown."""


@torch.no_grad()
def untouched_prompts(
    model: CausalModel, tokenizer: PreTrainedTokenizerBase, recipe: Recipe, prompts: Sequence[str | Prompt]
) -> Untouched:
    """Compare logits of prompts in rows without steering, beside steered rows, with those of no steering at all.

    Every prompt is in the batch twice, once steered and once not, so both batches have one shape.
    """
    if not prompts:
        raise MeasurementError("no prompt came; expected at least one; add some")
    ids, mask = left_pad(tokenizer, [text for prompt in prompts for text in (prompt, prompt)])
    layout = layout_of(model)

    def logits() -> Tensor:
        return run_pass(layout, ids, mask, head=True).float().cpu()

    plain = logits()
    with steer(model, rows=[acting_on_text(recipe), None] * len(prompts), tokenizer=tokenizer):
        steered = logits()
    after = logits()
    real = mask.bool()[:, :, None]
    gap = ((steered - plain).abs() * real).amax(dim=(1, 2))
    return Untouched(
        n=len(prompts),
        beside=float((gap[1::2] == 0).double().mean()),
        after=float((((after - plain).abs() * real).amax(dim=(1, 2)) == 0).double().mean()),
        largest_difference=float(gap[1::2].max()),
        steered_difference=float(gap[::2].max()),
    )


def kept_in_answers(answers: Sequence[Answer], *, resamples: int = 1000, seed: int = 0) -> CopiedShares:
    """Shares of the prompts' numbers, names and code that stand in the answers; for prompts that ask for a copy."""
    texts = [answer.prompt.text for answer in answers], [answer.text for answer in answers]
    return kept_shares(*texts, resamples=resamples, seed=seed)
