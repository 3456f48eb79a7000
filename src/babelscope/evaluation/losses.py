"""Loss of a model on held-out documents, in nats and in bits per byte."""

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from transformers import PreTrainedTokenizerBase

from babelscope.axes import Float, Float64, Int64, Tensor
from babelscope.corpus import (
    Batch,
    Texts,
    TokenDocument,
    as_corpus,
    batch_documents,
    make_batch,
    pad_of,
    say_cut,
    tokenize_documents,
)
from babelscope.errors import CorpusError, MeasurementError
from babelscope.languages import Language
from babelscope.models import Layout, layout_of
from babelscope.models.measuring import measured, run_pass
from babelscope.models.plain import CausalModel

LOGIT_ROWS = 512
"""Rows of logits held at a time: all of them would cost more in page faults than in arithmetic."""
PART = "\ufffd"
"""What tokenizers write for bytes that are no whole character."""
BYTE = re.compile("<0x[0-9A-F]{2}>")
"""A byte as tokenizers with byte fallback name it; byte-level ones have a letter for each byte."""


class HeldOut(NamedTuple):
    """Documents of one language, tokenized and batched once, to be scored many times."""

    language: Language
    batches: list[Batch]
    order: Int64[Tensor, " document"]
    """Place of each batched document in the text."""
    tokens: Int64[Tensor, " document"]
    """Scored tokens: all but BOS and other special ones, and all but the first where there is no BOS."""
    n_bytes: Int64[Tensor, " document"]
    """UTF-8 bytes of what is scored."""

    @classmethod
    def prepare(
        cls,
        tokenizer: PreTrainedTokenizerBase,
        texts: Texts,
        *,
        max_length: int = 512,
        batch_tokens: int = 4096,
        max_tokens: int | None = None,
    ) -> list["HeldOut"]:
        """Tokenize every language's documents; with `max_tokens`, the first whole documents up to that many tokens.

        Of conversations the words that count are scored; what is cut off one is said in the log.

        Raises CorpusError for a language without a token to score.
        """
        prepared = []
        for k, (tag, documents) in enumerate(as_corpus(texts).items()):
            whole = tokenize_documents(tokenizer, documents, k, max_length=max_length, name=str(tag))
            whole = [document for document in whole if document.tokens]
            kept, room = [], math.inf if max_tokens is None else max_tokens
            for document in whole:
                room -= document.n_counted
                if kept and room < 0:
                    break
                kept.append(document)
            say_cut(kept, str(tag), max_length)
            prepared.append(cls._of(tokenizer, tag, kept, batch_tokens))
        return prepared

    @classmethod
    def _of(
        cls, tokenizer: PreTrainedTokenizerBase, tag: Language, documents: list[TokenDocument], batch_tokens: int
    ) -> "HeldOut":
        numbered = [replace(document, id=str(place)) for place, document in enumerate(documents)]
        batches = batch_documents(numbered, batch_tokens=batch_tokens, pad=pad_of(tokenizer))
        order = torch.tensor([int(document.id) for batch in batches for document in batch.documents])
        tokens = torch.tensor([sum(document.counted[1:]) for document in documents])
        if int(tokens.sum()) == 0:
            raise CorpusError(f"language {tag!r} has no token to score; expected longer text; add some")
        return cls(tag, batches, order, tokens, torch.tensor([scored_bytes(tokenizer, d) for d in documents]))


def scored_bytes(tokenizer: PreTrainedTokenizerBase, document: TokenDocument) -> int:
    """UTF-8 bytes of the scored tokens: the whole text, unless it was cut or its first token can not be predicted.

    A token at either end may hold a part of a character: its own bytes are counted, not those of the sign for it.
    """
    if not document.truncated and not document.counted[0]:
        return document.n_bytes
    scored = [t for t, counted in zip(document.tokens[1:], document.counted[1:], strict=True) if counted]

    def text(start: int, end: int) -> str:
        return str(tokenizer.decode(scored[start:end], clean_up_tokenization_spaces=False))

    start, end = 0, len(scored)
    while start < end and text(start, end).startswith(PART):
        start += 1
    while start < end and text(start, end).endswith(PART):
        end -= 1
    pieces = tokenizer.convert_ids_to_tokens([*scored[:start], *scored[end:]])
    return len(text(start, end).encode()) + sum(1 if BYTE.fullmatch(piece) else len(piece) for piece in pieces)


class Losses(NamedTuple):
    """Negative log-likelihood of each document of one language."""

    language: Language
    nats: Float64[Tensor, " document"]
    tokens: Int64[Tensor, " document"]
    n_bytes: Int64[Tensor, " document"]

    @property
    def nats_per_token(self) -> float:
        """Mean negative log-likelihood."""
        return float(self.nats.sum() / self.tokens.sum())

    @property
    def bits_per_byte(self) -> float:
        """Bits per UTF-8 byte of the scored text."""
        return float(self.nats.sum() / math.log(2) / self.n_bytes.sum())


def at_least_float32(logits: Float[Tensor, "row vocab"]) -> Float[Tensor, "row vocab"]:
    """16 bits made float32; float64 stays."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


@torch.no_grad()
def batch_nll(layout: Layout, batch: Batch) -> Float64[Tensor, "batch token"]:
    """Negative log-likelihood in nats of each counted token but the first; 0 elsewhere."""
    scored = batch.counted.clone()
    scored[:, 0] = False
    rows, places = scored.nonzero(as_tuple=True)
    targets = batch.input_ids[rows, places]
    with measured(layout):
        hidden = run_pass(layout, batch.input_ids, batch.attention_mask)
        states = hidden[rows.to(hidden.device), places.to(hidden.device) - 1]
        parts = [
            part_nll(layout, *pair) for pair in zip(states.split(LOGIT_ROWS), targets.split(LOGIT_ROWS), strict=True)
        ]
    nll = torch.zeros(batch.counted.shape, dtype=torch.float64)
    nll[rows, places] = torch.cat(parts)
    return nll


def part_nll(
    layout: Layout, states: Float[Tensor, "row hidden"], targets: Int64[Tensor, " row"]
) -> Float64[Tensor, " row"]:
    """Negative log-likelihood of some rows' next tokens."""
    logits = at_least_float32(layout.logits(states))
    return F.cross_entropy(logits, targets.to(logits.device), reduction="none").double().cpu()


def document_losses(model: CausalModel | Layout, held_out: HeldOut) -> Losses:
    """Score prepared documents, each alone after BOS; pads and BOS are not scored.

    Raises MeasurementError where the loss is NaN or infinite.
    """
    layout = model if isinstance(model, Layout) else layout_of(model)
    nats = torch.zeros(len(held_out.order), dtype=torch.float64)
    nats[held_out.order] = torch.cat([batch_nll(layout, batch).sum(dim=1) for batch in held_out.batches])
    if not bool(torch.isfinite(nats).all()):
        raise MeasurementError(f"loss on {held_out.language} is NaN or infinite; expected a number; check the weights")
    return Losses(held_out.language, nats, held_out.tokens, held_out.n_bytes)


def bits_per_byte(
    model: CausalModel, tokenizer: PreTrainedTokenizerBase, texts: Texts, *, max_length: int = 512
) -> dict[Language, float]:
    """Held-out bits per UTF-8 byte of each language, every document alone after BOS."""
    layout = layout_of(model)
    prepared = HeldOut.prepare(tokenizer, texts, max_length=max_length)
    return {held.language: document_losses(layout, held).bits_per_byte for held in prepared}


def answer_nll(
    model: CausalModel, prefix: Sequence[int], answers: Sequence[Sequence[int]], *, batch_tokens: int = 4096
) -> tuple[float, int]:
    """Summed nats and number of scored tokens of answers by the model as it is now.

    prefix: what begins a text; each answer stands alone after it, and its first token is not scored, or the switch of
    language would be charged.
    """
    layout = layout_of(model)
    documents = [
        TokenDocument(0, str(i), (*prefix, *ids), (*(False for _ in prefix), False, *(True for _ in ids[1:])), 0, 0)
        for i, ids in enumerate(answers)
        if len(ids) > 1
    ]
    if not documents:
        return 0.0, 0
    nats = sum(
        float(batch_nll(layout, make_batch(batch.documents, 0)).sum())
        for batch in batch_documents(documents, batch_tokens=batch_tokens, pad=0)
    )
    return nats, sum(document.n_counted for document in documents)
