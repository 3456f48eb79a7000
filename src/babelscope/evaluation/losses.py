"""Loss of a model on held-out documents, in nats and in bits per byte."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from transformers import PreTrainedTokenizerBase

from babelscope.axes import Float, Float64, Int64, Tensor
from babelscope.controls.intervals import Interval, ratio_interval
from babelscope.corpus import (
    Batch,
    Texts,
    TokenDocument,
    as_corpus,
    numbered,
    pad_of,
    say_cut,
    tokenize_documents,
)
from babelscope.errors import CorpusError, MeasurementError, refuse_no_number
from babelscope.evaluation.next_token import next_token_nll
from babelscope.languages import Language
from babelscope.models import Layout, layout_of
from babelscope.models.plain import CausalModel
from babelscope.models.text_length import text_length
from babelscope.progress import progress_bar
from babelscope.recording.walk import OpenPasses, walk
from babelscope.recording.watchers import ReadSite, Watcher
from babelscope.sites import Site

LOGIT_ROWS = 512
"""Rows of logits held at a time: all of them would cost more in page faults than in arithmetic."""
PART = "\ufffd"
"""What tokenizers write for bytes that are no whole character."""
BYTE = re.compile("<0x[0-9A-F]{2}>")
"""A byte as tokenizers with byte fallback name it; byte-level ones have a letter for each byte."""


class HeldOut(NamedTuple):
    """Documents of one language, tokenized once, to be scored many times."""

    language: Language
    documents: list[TokenDocument]
    """With their places in the text as ids."""
    pad: int
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
        max_tokens: int | None = None,
    ) -> list["HeldOut"]:
        """Tokenize every language's documents; with `max_tokens`, the first whole documents up to that many tokens.

        Of conversations the words that count are scored; what is cut off one is said in the log.

        Raises CorpusError for a language without a token to score.
        """
        refuse_no_number({"max_length": max_length}, CorpusError, whole=True)
        if max_tokens is not None:
            refuse_no_number({"max_tokens": max_tokens}, CorpusError)
        prepared = []
        for k, (tag, documents) in enumerate(as_corpus(texts).items()):
            with_tokens = tokenize_documents(tokenizer, documents, k, max_length=max_length, name=str(tag))
            with_tokens = [document for document in with_tokens if document.tokens]
            within_limit, room = [], math.inf if max_tokens is None else max_tokens
            for document in with_tokens:
                room -= document.n_counted
                if within_limit and room < 0:
                    break
                within_limit.append(document)
            say_cut(within_limit, str(tag), max_length)
            prepared.append(cls._of(tokenizer, tag, within_limit))
        return prepared

    def every(self, number: int, of: int) -> "HeldOut":
        """The documents number, number + of, number + 2 of …; none where there are fewer."""
        documents = numbered(self.documents[number::of])
        return self._replace(documents=documents, tokens=self.tokens[number::of], n_bytes=self.n_bytes[number::of])

    def losses(self, nats: Float64[Tensor, " document"]) -> "Losses":
        """What was measured on the documents; raises MeasurementError where it is NaN or infinite."""
        if not bool(torch.isfinite(nats).all()):
            raise MeasurementError(f"loss on {self.language} is NaN or infinite; expected a number; check the weights")
        return Losses(self.language, nats, self.tokens, self.n_bytes)

    @classmethod
    def _of(cls, tokenizer: PreTrainedTokenizerBase, tag: Language, documents: list[TokenDocument]) -> "HeldOut":
        tokens = torch.tensor([sum(document.counted[1:]) for document in documents])
        if int(tokens.sum()) == 0:
            raise CorpusError(f"language {tag!r} has no token to score; expected longer text; add some")
        n_bytes = torch.tensor([scored_bytes(tokenizer, document) for document in documents])
        return cls(tag, numbered(documents), pad_of(tokenizer), tokens, n_bytes)


def scored_bytes(tokenizer: PreTrainedTokenizerBase, document: TokenDocument) -> int:
    """UTF-8 bytes of the scored tokens: the whole text, unless it was cut or its first token cannot be predicted.

    A token at either end may hold a part of a character: its own bytes are counted, not those of the sign for it.
    """
    if not document.truncated and not document.counted[0]:
        return document.n_bytes
    scored = [t for t, is_counted in zip(document.tokens[1:], document.counted[1:], strict=True) if is_counted]

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

    def bits_interval(self, level: float = 0.95) -> Interval:
        """Of the bits per byte, over documents, which are the independent units; NaN for fewer than two."""
        return ratio_interval(self.nats / math.log(2), self.n_bytes, level)


@dataclass(frozen=True, eq=False)
class DocumentNats:
    """Negative log-likelihood of each of some numbered documents."""

    layout: Layout
    nats: Float64[Tensor, " document"]

    @property
    def hooks(self) -> Mapping[Site, ReadSite]:
        """None: the body's output is enough."""
        return {}

    def measure(
        self, batch: Batch, values: dict[Site, Any], hidden: Float[Tensor, "batch token hidden"]
    ) -> Float64[Tensor, " batch"]:
        """Nats of each document of a batch."""
        return batch_nll(self.layout, batch, hidden).sum(dim=1)

    def add(self, batch: Batch, values: Float64[Tensor, " batch"]) -> None:
        """Put a batch's documents into their places."""
        self.nats[batch.places] = values


def batch_nll(
    layout: Layout, batch: Batch, hidden: Float[Tensor, "batch token hidden"]
) -> Float64[Tensor, "batch token"]:
    """Negative log-likelihood in nats of each counted token but the first, from the body's output; 0 elsewhere."""
    scored = batch.counted.clone()
    scored[:, 0] = False
    rows, places = scored.nonzero(as_tuple=True)
    targets = batch.input_ids[rows, places]
    states = hidden[rows.to(hidden.device), places.to(hidden.device) - 1]
    parts = [
        next_token_nll(layout, *pair) for pair in zip(states.split(LOGIT_ROWS), targets.split(LOGIT_ROWS), strict=True)
    ]
    nll = torch.zeros(batch.counted.shape, dtype=torch.float64)
    # One copy a batch: each waits until the device has done its work.
    nll[rows, places] = torch.cat(parts).double().cpu()
    return nll


def document_nats(
    layout: Layout,
    documents: Sequence[TokenDocument],
    *,
    pad: int,
    watchers: Sequence[Watcher] = (),
    passes: OpenPasses | None = None,
) -> Float64[Tensor, " document"]:
    """Negative log-likelihood in nats of each of some numbered documents, each alone after BOS.

    watchers: what else is measured in the same passes. passes: as in `walk`.
    """
    nats = torch.zeros(len(documents), dtype=torch.float64)
    walk(layout, [documents], [DocumentNats(layout, nats), *watchers], pad=pad, passes=passes)
    return nats


def document_losses(model: CausalModel | Layout, held_out: HeldOut, *, watchers: Sequence[Watcher] = ()) -> Losses:
    """Score prepared documents, each alone after BOS; pads and BOS are not scored.

    watchers: what else is measured in the same passes.
    Raises MeasurementError where the loss is NaN or infinite.
    """
    layout = model if isinstance(model, Layout) else layout_of(model)
    return held_out.losses(document_nats(layout, held_out.documents, pad=held_out.pad, watchers=watchers))


def bits_per_byte(
    model: CausalModel, tokenizer: PreTrainedTokenizerBase, texts: Texts, *, max_length: int | None = None
) -> dict[Language, float]:
    """Held-out bits per UTF-8 byte of each language, every document alone after BOS."""
    losses = held_out_losses(model, tokenizer, texts, max_length=max_length)
    return {part.language: part.bits_per_byte for part in losses}


def held_out_losses(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Texts,
    *,
    max_length: int | None = None,
    progress: bool = False,
) -> list[Losses]:
    """Losses on the documents of each language, every document alone after BOS.

    Raises CorpusError for a language without a token to score, MeasurementError where a loss is NaN or infinite.
    """
    layout = layout_of(model)
    prepared = HeldOut.prepare(tokenizer, texts, max_length=text_length(layout, max_length))
    with progress_bar(total=sum(len(part.documents) for part in prepared), unit="document", shown=progress) as bar:
        losses = []
        for part in prepared:
            bar.set_description_str(str(part.language), refresh=False)
            losses.append(document_losses(layout, part))
            bar.update(len(part.documents))
    return losses


def answer_losses(
    model: CausalModel, prefix: Sequence[int], answers: Sequence[Sequence[int]]
) -> tuple[Float64[Tensor, " answer"], Int64[Tensor, " answer"]]:
    """Nats and scored tokens of each answer, by the model as it is now; 0 and 0 where it is shorter than two tokens.

    prefix: what begins a text; each answer stands alone after it, and its first token is not scored, or the switch of
    language would be charged.
    """
    documents = [
        TokenDocument(
            language=0,
            id=str(place),
            tokens=(*prefix, *ids),
            counted=(*(False for _ in prefix), *(number > 0 for number in range(len(ids)))),
            truncated=0,
            n_bytes=0,
        )
        for place, ids in enumerate(answers)
    ]
    tokens = torch.tensor([document.n_counted for document in documents], dtype=torch.int64)
    layout, nats = layout_of(model), torch.zeros(len(answers), dtype=torch.float64)
    walk(layout, [[document for document in documents if document.n_counted]], [DocumentNats(layout, nats)])
    return nats, tokens


def answer_nll(model: CausalModel, prefix: Sequence[int], answers: Sequence[Sequence[int]]) -> tuple[float, int]:
    """Summed nats and number of scored tokens of answers; see `answer_losses`."""
    nats, tokens = answer_losses(model, prefix, answers)
    return float(nats.sum()), int(tokens.sum())
