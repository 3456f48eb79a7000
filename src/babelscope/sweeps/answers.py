"""Prompts, and answers to them under steering."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from transformers import PreTrainedTokenizerBase

from babelscope.artifacts import Operation
from babelscope.corpus import Corpus, pad_of, pad_rows, tokenize_prompts
from babelscope.errors import MeasurementError
from babelscope.languages import Language
from babelscope.models import batch_positions, layout_of, measured
from babelscope.models.plain import CausalModel
from babelscope.sites import Site
from babelscope.steering import steer

Steerer = Callable[[Language, Language], Sequence[Operation]]
"""Target and source language → the operations for that row; none of them leaves the row as it is."""


class Prompt(NamedTuple):
    """The beginning of a document."""

    id: str
    """The document's id: in parallel text the same sentence in every language."""
    source: Language
    text: str


class Answer(NamedTuple):
    """What the model wrote after a prompt."""

    prompt: Prompt
    target: Language
    ids: tuple[int, ...]
    """New tokens, end of text and pads left out."""
    text: str


@dataclass(frozen=True)
class Decoding:
    """How answers are drawn; equal for steered, native and baseline answers."""

    new_tokens: int = 32
    """Tokens of every answer: the end of text is not drawn before."""
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


def make_prompts(
    corpus: Corpus, *, per_language: int, share: float = 0.5, start: int = 0, longest: int = 400
) -> list[Prompt]:
    """The first `share` of the letters of some documents of each language, cut at a space where there is one.

    longest: letters of a document at most; the rest is as if it were not there.
    """
    prompts = []
    for tag, documents in corpus.items():
        for document in documents[start : start + per_language]:
            text = document.text[:longest]
            text = text[: max(1, round(len(text) * share))]
            head = text.rsplit(" ", 1)[0] if " " in text else text
            prompts.append(Prompt(document.id, tag, head))
    return prompts


def generate_answers(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    requests: Sequence[tuple[Prompt, Language]],
    steerer: Steerer | None = None,
    *,
    decoding: Decoding,
) -> list[Answer]:
    """One answer to each (prompt, target), steered row by row; the global random state is left as it was.

    The model answers in eval mode. Special tokens, BOS among them, are steered but by gates with `skip_special=True`.
    """
    order = sorted(range(len(requests)), key=lambda index: (len(requests[index][0].text), index))
    answers: list[Answer | None] = [None] * len(requests)
    devices = [layout_of(model).device_of(Site(None, "embed"))]
    with torch.random.fork_rng(devices=[device for device in devices if device.type == "cuda"]):
        torch.manual_seed(decoding.seed)
        for chosen in _batches(model, tokenizer, requests, order, decoding.batch_size):
            batch = [requests[index] for index in chosen]
            for index, answer in zip(chosen, answer_batch(model, tokenizer, batch, steerer, decoding), strict=True):
                answers[index] = answer
    return [answer for answer in answers if answer is not None]


def _batches(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    requests: Sequence[tuple[Prompt, Language]],
    order: Sequence[int],
    size: int,
) -> Iterator[list[int]]:
    """Places of the requests that are answered together.

    Longrope changes its frequencies, and transformers forgets its cache, where the padded prompt passes a length: such
    prompts are answered beside others of their own length alone.
    """
    groups = [list(order)]
    if batch_positions(model):
        lengths = [int(left_pad(tokenizer, [prompt.text])[1].sum()) for prompt, _ in requests]
        groups = [[place for place in order if lengths[place] == length] for length in sorted(set(lengths))]
    for group in groups:
        yield from (group[start : start + size] for start in range(0, len(group), size))


@torch.no_grad()
def answer_batch(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    batch: Sequence[tuple[Prompt, Language]],
    steerer: Steerer | None,
    decoding: Decoding,
) -> list[Answer]:
    """One left-padded call of generate."""
    ids, mask = left_pad(tokenizer, [prompt.text for prompt, _ in batch])
    layout = layout_of(model)
    device = layout.device_of(Site(None, "embed"))
    rows = None if steerer is None else [list(steerer(target, prompt.source)) for prompt, target in batch]
    spared = any(operation.gate.skip_special for row in rows or () for operation in row)
    if rows is not None and spared:
        rows = [[_with_special_tokens_said(operation) for operation in row] for row in rows]
    with measured(layout), steer(model, rows=rows, tokenizer=tokenizer if spared else None):
        out = model.generate(  # pyright: ignore[reportCallIssue]
            input_ids=ids.to(device),
            attention_mask=mask.to(device),
            max_new_tokens=decoding.new_tokens,
            min_new_tokens=decoding.new_tokens,
            do_sample=decoding.temperature > 0,
            **({"temperature": decoding.temperature, "top_k": 0, "top_p": 1.0} if decoding.temperature > 0 else {}),
            pad_token_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id,
        )
    special = set(tokenizer.all_special_ids)
    fresh = [tuple(token for token in row if token not in special) for row in out[:, ids.shape[1] :].tolist()]
    return [
        Answer(prompt, target, new, str(tokenizer.decode(list(new))))
        for (prompt, target), new in zip(batch, fresh, strict=True)
    ]


def _with_special_tokens_said(operation: Operation) -> Operation:
    """The same where the tokenizer is known: a gate that does not say is one that leaves none out."""
    return replace(operation, gate=replace(operation.gate, skip_special=bool(operation.gate.skip_special)))


def left_pad(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], *, rendered: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and mask of prompts padded on the left; BOS exactly once where the tokenizer has one.

    rendered: the texts were written by the model's chat template; see `tokenize_prompts`.
    """
    return pad_rows(tokenize_prompts(tokenizer, texts, rendered=rendered), pad_of(tokenizer))
