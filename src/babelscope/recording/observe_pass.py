"""Observe a model: one whole pass of labelled text, from its settings to an Observation."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from babelscope.artifacts import Observation
from babelscope.corpus import Texts, as_corpus, pad_of
from babelscope.models import layout_of
from babelscope.models.device_placement import follows_batch
from babelscope.models.plain import CausalModel
from babelscope.models.text_length import text_length
from babelscope.progress import never
from babelscope.recording.pass_plan import PassPlan
from babelscope.recording.pass_settings import PassSettings, parse_sites
from babelscope.recording.site_sums import PassSums
from babelscope.recording.tally import Tally
from babelscope.recording.walk import batch_room, walk
from babelscope.sites import USUAL_SITES, Site

log = logging.getLogger(__name__)


def observe(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Texts,
    *,
    sites: Sequence[str | Site] = USUAL_SITES,
    tokens_per_language: int | None = 100_000,
    shards: int = 32,
    part: tuple[int, int] = (0, 1),
    turns: tuple[int, int] = (0, 1),
    batch_size: int | str = "auto",
    max_length: int | None = None,
    checkpoint: str | Path | None = None,
    checkpoint_seconds: float = 20.0,
    progress: bool = False,
    stop: Callable[[], bool] = never,
) -> Observation:
    """Stream labelled text through a model once and add up what its units do, by language.

    sites: names such as "mlp_gate" (all layers) or "5.resid_out" (one). Neurons are selected by mlp_gate, ablation and
    arithmetic take levels from mlp_inner, directions are made from resid_out; the three are read unless told.
    tokens_per_language: a maximum, met exactly; a shortfall is logged and stays visible in `.tokens`. None: all text.
    shards: document shards kept apart for bootstraps and splits; 0 keeps none.
    part: (i, n) reads only documents whose shard mod n is i; the n parts add up to the whole.
    turns: (i, n) reads only the batches numbered i, i + n, i + 2n …; the n turns add up to the whole too, with the same
        batches, so that every count is equal to the bit, whatever the dtype.
    batch_size: documents per batch, or "auto" (4,096 padded tokens, 32,768 on a GPU); one that does not fit is halved.
    max_length: tokens per document at most, BOS included; what is cut is counted in `.truncated`. None: 512, or as
        many as the model has positions.
    checkpoint: a folder in which an interrupted pass is kept, and from which it goes on, bit for bit; one run uses it
        at a time.
    stop: asked between batches; True saves the checkpoint and raises KeyboardInterrupt.

    Counts are exact int64: tokens with pre-activation > 0 at mlp_gate, value > 0 elsewhere. Sums and squares are
    added in float64. Pads, BOS and other special tokens are never counted.
    Raises MeasurementError where a site gives NaN or infinity, CorpusError for a language without text.
    """
    layout, corpus = layout_of(model), as_corpus(texts)
    max_length = text_length(layout, max_length)
    settings = PassSettings(
        sites=parse_sites(layout, sites),
        tokens_per_language=tokens_per_language,
        shards=shards,
        part=part,
        batch_tokens=batch_room(layout),
        batch_size=None if batch_size == "auto" else int(batch_size),
        max_length=max_length,
        turns=turns,
    )
    if follows_batch(layout.model):
        log.warning(
            "8-bit weights of bitsandbytes: a product depends on the other rows of its batch, so counts vary "
            "a little with batch_size; compare observations of one batch_size, or open it in bfloat16 or int4"
        )
    plan = PassPlan(layout, tokenizer, corpus, settings)
    tally, sums = Tally.zeros(len(corpus), shards), PassSums(layout, settings.sites, len(corpus), shards)
    with plan.state(checkpoint) as state:
        walk(
            layout,
            plan.documents(),
            [sums, tally],
            pad=pad_of(tokenizer),
            batch_tokens=settings.batch_tokens,
            batch_size=settings.batch_size,
            turns=settings.turns,
            state=state,
            checkpoint_seconds=checkpoint_seconds,
            progress=plan.progress() if progress else None,
            stop=stop,
        )
    observation = plan.observation(tally, sums.records())
    for line in large_shares(observation):
        log.info(line)
    return observation


def large_shares(observation: Observation) -> list[str]:
    """A line for every stream site at which massive units or first tokens dominate some layer."""
    lines = []
    for at, record in observation.records.items():
        streams = [(layer, observation.stream(at, layer)) for layer in record.layers]
        large = [(layer, stream) for layer, stream in streams if stream is not None and stream.form("auto") != "whole"]
        if large:
            layer, stream = max(large, key=lambda pair: pair[1].shares.unit_share)
            first = max(stream.shares.first_ratio for _, stream in large)
            lines.append(
                f"{at}: in {len(large)} of {len(record.layers)} layers a few units or first tokens are far larger than "
                f"the rest: up to {stream.shares.unit_share:.2f} of the squared length in unit {stream.shares.unit} "
                f"(layer {layer}), first tokens up to {first:.3g} × as large in square; directions there leave both out"
            )
    return lines
