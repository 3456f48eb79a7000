"""Prompts, plain or put to a chat model, and answers to them under steering."""

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from transformers import PreTrainedTokenizerBase

from babelscope.artifacts import Operation
from babelscope.axes import Int, Tensor
from babelscope.corpus import (
    end_of_turn,
    pad_of,
    pad_rows,
    special_ids,
)
from babelscope.errors import MeasurementError
from babelscope.files.work_log import hash_of, piece_of_work
from babelscope.languages import Language
from babelscope.models import batch_positions, layout_of, measured
from babelscope.models.plain import CausalModel
from babelscope.models.seeding import seeded
from babelscope.progress import progress_bar
from babelscope.sites import Site
from babelscope.steering import Receipt, steer
from babelscope.steering.engine import Operations, flat_operations
from babelscope.steering.sweeps.decoding import Decoding
from babelscope.steering.sweeps.drawn_tokens import drawn_keywords, is_large
from babelscope.steering.sweeps.steering_prompts import Prompt, prompt_ids
from babelscope.upstream.generation import pin_generation
from babelscope.upstream.names import attribute

log = logging.getLogger(__name__)
Steerer = Callable[[Language, Language], Operations]
"""Target and source language → the operations for that row; none of them leaves the row as it is."""


class Answer(NamedTuple):
    """What the model wrote after a prompt."""

    prompt: Prompt
    target: Language
    ids: tuple[int, ...]
    """New tokens up to the end of the text or turn; control tokens and pads left out."""
    text: str
    ended: bool = False
    """Whether the model ended its turn within the tokens it had; only in chats, where it may."""
    receipt: Receipt | None = None
    """What steering did in the call of `generate` that this answer is from; None where nothing steered."""


def generate_answers(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    requests: Sequence[tuple[Prompt, Language]],
    steerer: Steerer | None = None,
    *,
    decoding: Decoding,
    progress: str = "",
) -> list[Answer]:
    """One answer to each (prompt, target), steered row by row; the global random state is left as it was.

    progress: what a bar calls the answers; without it none is shown.

    Prompts with messages are rendered by the model's chat template, before anything is generated, and answers to them
    end where the model ends its turn. The model answers in eval mode, and draws by `decoding` alone: see
    `overridden_settings` for what a checkpoint says of its own. Special tokens, BOS among them, are steered but
    by gates with `skip_special=True`.
    Raises ChatError where the template is missing or refuses a prompt, MeasurementError for chats and plain prompts
    together, PrerequisiteError for tokens that the model has no row for, or more of them than it has positions.
    """
    prompts = [prompt for prompt, _ in requests]
    chats = sum(bool(prompt.messages) for prompt in prompts)
    if 0 < chats < len(prompts):
        raise MeasurementError(
            f"{chats} of {len(prompts)} prompts are chats; expected all or none: their answers end differently; answer "
            "them in two calls"
        )
    encoded = prompt_ids(tokenizer, prompts)
    layout_of(model).check_prompts(encoded, decoding.new_tokens)
    ends = ending_ids(model, tokenizer) if chats else ()
    order = sorted(range(len(requests)), key=lambda index: (len(requests[index][0].text), index))
    answers: list[Answer | None] = [None] * len(requests)
    bar = progress_bar(total=len(requests), unit="answer", desc=progress, shown=bool(progress))
    with seeded(decoding.seed), bar:
        for chosen in _batches(model, encoded, order, decoding.batch_size):
            batch = [requests[index] for index in chosen]
            rows = [encoded[index] for index in chosen]
            answered = answer_batch(model, tokenizer, batch, rows, steerer, decoding, ends)
            for index, answer in zip(chosen, answered, strict=True):
                answers[index] = answer
            bar.update(len(chosen))
    return [answer for answer in answers if answer is not None]


def _batches(
    model: CausalModel, encoded: Sequence[Sequence[int]], order: Sequence[int], size: int
) -> Iterator[list[int]]:
    """Places of the requests that are answered together.

    A large vocabulary is read whole at every step, however few rows there are: its batches are even. Those of smaller
    ones are full but for the last, as the answers of earlier releases were drawn.
    Longrope changes its frequencies, and transformers forgets its cache, where the padded prompt passes a length: such
    prompts are answered beside others of their own length alone.
    """
    groups = [list(order)]
    if batch_positions(model):
        lengths = [len(ids) for ids in encoded]
        groups = [[place for place in order if lengths[place] == length] for length in sorted(set(lengths))]
    even = is_large(layout_of(model).width("logits"))
    for group in groups:
        number = -(-len(group) // size)
        ends = [len(group) * place // number if even else place * size for place in range(1, number + 1)]
        yield from (group[start:end] for start, end in pairwise([0, *ends]))


def ending_ids(model: CausalModel, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """Ids that end a turn: those of the generation config, the tokenizer's end of text, and what the template writes
    after an answer, which the other two may lack.
    """
    all_endings = [*config_endings(model), tokenizer.eos_token_id, end_of_turn(tokenizer)]
    return tuple(sorted({int(token) for token in all_endings if token is not None}))  # pyright: ignore[reportArgumentType]


def config_endings(model: CausalModel) -> tuple[int, ...]:
    """Ids that end a text by the generation config."""
    ids = attribute(model, "model.generation").eos_token_id
    return tuple(ids) if isinstance(ids, list) else () if ids is None else (ids,)


class _Drawn(NamedTuple):
    """One call of generate."""

    ids: Int[Tensor, "row new"]
    """New tokens, with pads where an answer has ended."""
    counts: list[Any]
    """Of the receipt."""
    generators: list[Tensor]
    """States of the generators after the call."""


def random_states(device: torch.device) -> list[Tensor]:
    """State of the CPU's generator, and of a GPU's where that draws."""
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])]


def set_random_states(states: Sequence[Tensor], device: torch.device) -> None:
    """Set what `random_states` gave."""
    torch.set_rng_state(states[0].cpu())
    for state in states[1:]:
        torch.cuda.set_rng_state(state.cpu(), device)


@torch.no_grad()
def answer_batch(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    batch: Sequence[tuple[Prompt, Language]],
    encoded: Sequence[Sequence[int]],
    steerer: Steerer | None,
    decoding: Decoding,
    ends: tuple[int, ...] = (),
) -> list[Answer]:
    """One left-padded call of generate; `ends` end an answer, and without them all have the same length."""
    ids, mask = pad_rows(encoded, pad_of(tokenizer))
    layout = layout_of(model)
    device = layout.device_of(Site(None, "embed"))
    rows = None if steerer is None else [steerer(target, prompt.source) for prompt, target in batch]
    pinned = pin_generation(model, decoding.settings(ends))
    keywords = drawn_keywords(model, pinned.keywords, layout.width("logits"), config_endings(model))
    with measured(layout), steered_rows(model, tokenizer, rows) as receipt:

        def draw() -> _Drawn:
            out = model.generate(  # pyright: ignore[reportCallIssue]
                input_ids=ids.to(device),
                attention_mask=mask.to(device),
                pad_token_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id,
                **keywords,
            )
            return _Drawn(out[:, ids.shape[1] :], receipt.counts(), random_states(device))

        batch_result = piece_of_work(lambda: hash_of(ids, mask, *random_states(device), repr(keywords)), draw)
        # Of an interrupted run: what it drew and counted, and where its generator stood after.
        receipt.restore(batch_result.counts)
        set_random_states(batch_result.generators, device)
    # The last token drawn is not fed back.
    receipt.check_answers(len(batch) * (batch_result.ids.shape[1] - 1))
    special = special_ids(tokenizer)
    answers = []
    for (prompt, target), row in zip(batch, batch_result.ids.tolist(), strict=True):
        end = next((place for place, token in enumerate(row) if token in ends), len(row))
        fresh = tuple(token for token in row[:end] if token not in special)
        text = str(tokenizer.decode(list(fresh), skip_special_tokens=True))
        answers.append(Answer(prompt, target, fresh, text, end < len(row), receipt if receipt.rows else None))
    return answers


@contextmanager
def steered_rows(
    model: CausalModel, tokenizer: PreTrainedTokenizerBase, rows: Sequence[Operations] | None
) -> Iterator[Receipt]:
    """While open, each row of a batch is steered as an answer is; None steers nothing.

    Special tokens, BOS among them, are steered but by gates with `skip_special=True`.
    """
    steered = None if rows is None else [flat_operations(row) for row in rows]
    spared = any(operation.gate.skip_special for row in steered or () for operation in row)
    if steered is not None and spared:
        steered = [[_with_special_tokens_said(operation) for operation in row] for row in steered]
    with steer(model, rows=steered, tokenizer=tokenizer if spared else None) as receipt:
        yield receipt


def steered_tokens(answers: Sequence[Answer]) -> dict[str, dict[str, int]]:
    """What steering did in the calls that gave these answers, by phase: tokens seen and edited, and skipped by reason.

    Summed over operations: a token that two operations change counts twice. Empty where nothing steered.
    """
    receipts = {id(answer.receipt): answer.receipt for answer in answers if answer.receipt is not None}
    totals: dict[str, Counter[str]] = {}
    for receipt in receipts.values():
        for row in receipt.rows:
            totals.setdefault(row.phase, Counter(seen=0, edited=0)).update(
                {"seen": row.seen, "edited": row.edited, **row.skipped}
            )
    return {phase: dict(counts) for phase, counts in totals.items()}


def _with_special_tokens_said(operation: Operation) -> Operation:
    """The same where the tokenizer is known: a gate that does not say is one that leaves none out."""
    return replace(operation, gate=replace(operation.gate, skip_special=bool(operation.gate.skip_special)))
