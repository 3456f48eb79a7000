"""In which numbers a study computes on a processor: bfloat16 where that is faster and was seen to say the same."""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from transformers import PreTrainedTokenizerBase

from babelscope.axes import Bool, Tensor
from babelscope.corpus import Batch, Corpus
from babelscope.evaluation import HeldOut, document_losses
from babelscope.models import Layout, layout_of, open_model, stored_dtype
from babelscope.models.plain import CausalModel
from babelscope.models.text_length import text_length
from babelscope.recording.watchers import ReadSite, SiteValue
from babelscope.sites import Site

log = logging.getLogger(__name__)
COMPARED_TOKENS = 250
"""Of each of two languages."""
MOST_SIGNS, MOST_LOSS = 0.01, 0.005
"""Share of signs of neurons, and of a language's loss, that may differ for bfloat16 to be taken."""
LEAST_GAIN = 1.5
"""How much faster products of matrices in bfloat16 must be: processors without units for it are slower."""


class ShortRead(NamedTuple):
    """What a model gives on a short text."""

    signs: Bool[Tensor, " sign"]
    """Whether a neuron is active: of each layer, counted token and neuron."""
    losses: tuple[float, ...]
    """Nats per token of each language."""
    seconds: float


@dataclass(frozen=True, eq=False)
class SignBits:
    """Whether each neuron is active, token after token."""

    layout: Layout
    parts: list[Tensor] = field(default_factory=list)

    @property
    def hooks(self) -> Mapping[Site, ReadSite]:
        """The sign at each layer's gate."""
        return {Site(layer, "mlp_gate"): self.read for layer in range(self.layout.n_layers)}

    def read(self, batch: Batch, site_value: SiteValue) -> Bool[Tensor, " sign"]:
        """Of the counted tokens."""
        return (site_value.sign_source[site_value.counted] > 0).flatten()

    def add(self, batch: Batch, values: Mapping[Site, Tensor]) -> None:
        """Keep a batch's signs, layer after layer."""
        self.parts.extend(values[site] for site in self.hooks)


def open_for_study(
    name: str, text: Corpus, *, device: str, dtype: str, planned: str | None
) -> tuple[CausalModel, PreTrainedTokenizerBase]:
    """Open a model; with dtype "auto" on a processor, in bfloat16 where it is stored so, faster so, and agrees.

    planned: dtype that an interrupted run of the same study had, which it goes on in. What was compared is logged.
    """
    if dtype == "auto" and planned is not None:
        dtype = planned
    model, tokenizer = open_model(name, device=device, dtype=dtype)
    if dtype != "auto" or model.device.type != "cpu" or stored_dtype(name) != torch.bfloat16:
        return model, tokenizer
    if layout_of(model).n_experts or (gain := matrix_gain()) < LEAST_GAIN:
        return model, tokenizer
    exact = short_read(model, tokenizer, text)
    del model  # Two copies of the weights would not fit where one does.
    model, tokenizer = open_model(name, device=device, dtype="bfloat16")
    rounded = short_read(model, tokenizer, text)
    signs, loss = float((exact.signs != rounded.signs).double().mean()), largest_change(exact.losses, rounded.losses)
    agrees = signs <= MOST_SIGNS and loss <= MOST_LOSS
    log.info(
        "bfloat16, as the weights are stored: matrix products %.1f × and short passes %.1f × as fast as float32; "
        "%.2f %% of neurons' signs and %.2f %% of the loss differ; %s",
        gain,
        exact.seconds / rounded.seconds,
        100 * signs,
        100 * loss,
        "taken; --dtype float32 for the other"
        if agrees
        else f"more than {MOST_SIGNS:.0%} of signs or {MOST_LOSS:.1%} of the loss: float32 is taken",
    )
    return (model, tokenizer) if agrees else open_model(name, device=device, dtype="float32")


def largest_change(exact: tuple[float, ...], rounded: tuple[float, ...]) -> float:
    """The largest share by which a language's loss differs."""
    return max(abs(b - a) / a for a, b in zip(exact, rounded, strict=True))


def short_read(model: CausalModel, tokenizer: PreTrainedTokenizerBase, text: Corpus) -> ShortRead:
    """Read a few documents of two languages; the first of two passes is not timed."""
    layout = layout_of(model)
    two, length = text.only([*text][:2]), text_length(layout, None)
    parts = HeldOut.prepare(tokenizer, two, max_length=length, max_tokens=COMPARED_TOKENS)
    document_losses(layout, parts[0])
    bits, began = SignBits(layout), time.perf_counter()
    losses = tuple(document_losses(layout, part, watchers=[bits]).nats_per_token for part in parts)
    return ShortRead(torch.cat(bits.parts), losses, time.perf_counter() - began)


def matrix_gain(rows: int = 512, width: int = 1024, columns: int = 4096, repeats: int = 5) -> float:
    """How much faster this processor multiplies matrices in bfloat16 than in float32; the fastest of some tries."""

    def fastest(dtype: torch.dtype) -> float:
        left = torch.ones(rows, width, dtype=dtype)
        right, best = torch.ones(width, columns, dtype=dtype), float("inf")
        for _ in range(repeats):
            began = time.perf_counter()
            torch.mm(left, right)
            best = min(best, time.perf_counter() - began)
        return best

    return fastest(torch.float32) / fastest(torch.bfloat16)


def planned_dtype(plan: Mapping[str, Any] | None) -> str | None:
    """The dtype in the plan of an interrupted run, as `open_model` calls it; None where there is none."""
    dtype = None if plan is None else plan.get("dtype")
    return dtype.removeprefix("torch.") if isinstance(dtype, str) else None
