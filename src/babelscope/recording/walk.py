"""The one road of text through a model: batches of documents, what is read of each, and the totals it is added to."""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import torch

from babelscope.axes import Float, Tensor
from babelscope.corpus import Batch, TokenDocument, batch_documents
from babelscope.errors import ArtifactError, MeasurementError
from babelscope.files.state_folder import RunState, StateFolder, restore
from babelscope.files.work_log import hash_of, piece_of_work
from babelscope.models import Encoder, Layout, eval_mode
from babelscope.models.attention import AttentionInputs, attention_by
from babelscope.models.device_placement import check_has_numbers
from babelscope.models.measuring import measured, run_pass
from babelscope.progress import never, progress_bar
from babelscope.recording.memory_errors import is_out_of_memory
from babelscope.recording.watchers import (
    AttentionWatcher,
    OutputWatcher,
    ReadSite,
    ResumableWatcher,
    SiteValue,
    Watcher,
)
from babelscope.sites import Site

log = logging.getLogger(__name__)
CPU_TOKENS = 4_096
GPU_TOKENS = 32_768
"""Padded tokens of a batch, by where the model is."""


@dataclass(frozen=True)
class Progress:
    """What a progress bar says: the language being read, how much of the total is read, and the time left."""

    languages: Sequence[str]
    total: int
    unit: Literal["tokens", "documents"] = "tokens"

    def of(self, batch: Batch) -> int:
        """How much of the total one batch is."""
        return len(batch.documents) if self.unit == "documents" else sum(d.n_counted for d in batch.documents)


Forward = Callable[[Batch], list[Any]]
"""One pass: what each watcher adds for a batch; nothing is added yet."""
OpenPasses = Callable[[Any, Sequence[Watcher]], AbstractContextManager[Forward]]
"""Opens passes over what is read, for some watchers; while open, the model is in eval mode, its positions pinned."""


def batch_room(layout: Layout | Encoder) -> int:
    """Padded tokens of a batch for a model: 4,096 on the CPU, 32,768 on a GPU."""
    return CPU_TOKENS if layout.device_of(Site(0, "resid_in")).type == "cpu" else GPU_TOKENS


@torch.no_grad()
def walk(
    layout: Layout | Encoder,
    text: Iterable[Sequence[TokenDocument]],
    watchers: Sequence[Watcher],
    *,
    pad: int = 0,
    batch_tokens: int | None = None,
    batch_size: int | None = None,
    most_documents: int | None = None,
    turns: tuple[int, int] = (0, 1),
    state: StateFolder | None = None,
    checkpoint_seconds: float = 20.0,
    progress: Progress | None = None,
    stop: Callable[[], bool] = never,
    passes: OpenPasses | None = None,
) -> None:
    """Read text once, in eval mode, each document as if it were alone, and let every watcher add up what it measures.

    text: documents in groups; those of one group are batched together, in the order of their length.
    batch_tokens: padded tokens of a batch at most; None takes `batch_room`. batch_size: documents of a batch, still
    within that room. most_documents: batches of more are halved. A batch that does not fit in memory is halved too, and
    so are later ones of its size.
    turns: (i, n) reads of the batches those numbered i, i + n, i + 2n …
    state: where the walk is kept when it is interrupted, and from which it goes on, bit for bit; it is written after so
    many seconds at least. stop: asked between batches; True writes the state and raises KeyboardInterrupt.
    passes: how a batch is passed and read; None sets hooks on the modules of a Layout, or takes an Encoder's states.
    Raises CorpusError for a document that does not fit in memory, ArtifactError for the state of another walk,
    PrerequisiteError for weights without numbers.
    """
    if passes is None:  # others may load the weights at the first pass, as nnsight does
        check_has_numbers(layout.model)
    open_passes = passes or usual_passes(layout)
    room = batch_tokens or batch_room(layout)
    batches_done = 0 if state is None else restored(state, watchers)
    number, tokens, written = -1, 0, time.monotonic()
    bar = progress_bar(
        total=progress and progress.total, unit=progress.unit if progress else "", shown=progress is not None
    )
    with bar, open_passes(layout, watchers) as forward:
        walker = Walker(
            watchers,
            forward if state is not None else partial(logged, forward, pass_identity(watchers)),
            room,
            most_documents,
        )
        groups = (batch_documents(group, batch_tokens=room, pad=pad, batch_size=batch_size) for group in text)
        for number, batch in enumerate(batch for group in groups for batch in group):
            if number % turns[1] != turns[0]:
                continue
            if number >= batches_done and stop():
                if state is not None:
                    state.write(run_state(watchers, number, tokens))
                raise KeyboardInterrupt
            tokens += sum(document.n_counted for document in batch.documents)
            if number < batches_done:
                if progress:
                    # What an earlier run has read is no measure of this one's speed.
                    bar.initial = bar.n = bar.n + progress.of(batch)
                continue
            if progress:
                bar.set_description_str(progress.languages[batch.documents[0].language], refresh=False)
            walker.read(batch)
            if progress:
                bar.total = max(bar.total, bar.n + progress.of(batch))  # what is expected of long text is an estimate
                bar.update(progress.of(batch))
            if state is not None and time.monotonic() - written >= checkpoint_seconds:
                state.write(run_state(watchers, number + 1, tokens))
                written = time.monotonic()
    if batches_done > number + 1:
        raise ArtifactError(
            f"a walk of {number + 1} batches was resumed after {batches_done}; expected no more than there are; its "
            "state is damaged; remove it to start anew"
        )


def logged(forward: Forward, what: str, batch: Batch) -> list[Any]:
    """What a batch adds to every watcher: out of the log of an interrupted run, or by a pass."""
    return piece_of_work(
        lambda: hash_of(what, batch.input_ids, batch.attention_mask, batch.counted), lambda: forward(batch)
    )


def pass_identity(watchers: Sequence[Watcher]) -> str:
    """What is read of each batch."""
    return ", ".join(f"{type(watcher).__name__} {sorted(map(str, watcher.hooks))}" for watcher in watchers)


def restored(state: StateFolder, watchers: Sequence[Watcher]) -> int:
    """Copy a saved state into the totals; the number of batches that they hold then."""
    totals, saved = totals_of(watchers), state.read()
    if saved is None:
        return 0
    restore(totals, saved.tensors, state.folder)
    return saved.done


def run_state(watchers: Sequence[Watcher], batches_done: int, tokens: int) -> RunState:
    """The totals of so many batches, as they are saved."""
    return RunState(batches_done, totals_of(watchers), {"tokens": tokens})


def totals_of(watchers: Sequence[Watcher]) -> dict[str, Tensor]:
    """The totals of all watchers by name; raises MeasurementError for one that cannot be resumed."""
    totals: dict[str, Tensor] = {}
    for watcher in watchers:
        if not isinstance(watcher, ResumableWatcher):
            raise MeasurementError(f"{type(watcher).__name__} has no state to save; expected one; leave the folder out")
        state = watcher.state()
        if shared := totals.keys() & state.keys():
            raise MeasurementError(f"two watchers keep a {min(shared)!r}; expected names of their own; rename one")
        totals |= state
    return totals


@dataclass(eq=False)
class Walker:
    """A walk under way."""

    watchers: Sequence[Watcher]
    forward: Forward
    room: int
    """Padded tokens that fit in memory, as far as is known."""
    most_documents: int | None

    def read(self, batch: Batch) -> None:
        """Add one batch; one that does not fit in memory is halved, and so are later ones of its size."""
        size, documents = batch.input_ids.numel(), len(batch.documents)
        halves: list[Batch] = []
        if documents > 1 and (size > self.room or documents > (self.most_documents or documents)):
            halves = [*batch.halves()]
        else:
            try:
                addends = self.forward(batch)
            except (RuntimeError, MemoryError) as err:
                if not is_out_of_memory(err):
                    raise
                halves = [*batch.halves()]
                self.room = halves[0].input_ids.numel()
                log.warning("batch of %d tokens did not fit; going on with %d", size, self.room)
            else:
                for watcher, addend in zip(self.watchers, addends, strict=True):
                    watcher.add(batch, addend)
        # Outside of the handler, whose error keeps the failed pass's tensors alive.
        for half in halves:
            self.read(half)


def usual_passes(layout: Layout | Encoder) -> OpenPasses:
    """By the model's own forward."""
    return encoder_passes if isinstance(layout, Encoder) else hooked_passes


@contextmanager
def hooked_passes(layout: Layout, watchers: Sequence[Watcher]) -> Iterator[Forward]:
    """Passes of the model itself, with one set of hooks for the whole walk."""
    head = any(site.at == "logits" for watcher in watchers for site in watcher.hooks)
    if head and any(isinstance(watcher, OutputWatcher) for watcher in watchers):
        raise MeasurementError("a pass that reads logits gives no hidden states; expected one of both; walk twice")
    reader = PassReader(layout, watchers, head)
    with ExitStack() as stack:
        stack.enter_context(measured(layout))
        for index, watcher in enumerate(watchers):
            for site, read in watcher.hooks.items():
                stack.enter_context(layout.watch(site, partial(reader.see, index, site, read)))
            if isinstance(watcher, AttentionWatcher):
                stack.enter_context(attention_by(layout.model, partial(reader.attend, index, watcher)))
        yield reader.forward


@contextmanager
def encoder_passes(encoder: Encoder, watchers: Sequence[Watcher]) -> Iterator[Forward]:
    """Passes of an encoder, whose states are what its sites give; no hook is set."""
    if any(isinstance(watcher, OutputWatcher | AttentionWatcher) for watcher in watchers):
        raise MeasurementError("an encoder came for losses or attention; expected a decoder; take such a model")

    def forward(batch: Batch) -> list[Any]:
        states = encoder.run(batch.input_ids, batch.attention_mask)
        counted = batch.counted.to(states[0].device)
        values = {
            site: SiteValue(state, state, None, counted) for site, state in zip(encoder.sites, states, strict=True)
        }
        return [{site: read(batch, values[site]) for site, read in watcher.hooks.items()} for watcher in watchers]

    with eval_mode(encoder.model):
        yield forward


@dataclass(eq=False)
class PassReader:
    """What the hooks of a walk read of the batch under way."""

    layout: Layout
    watchers: Sequence[Watcher]
    head: bool
    """Whether the whole model is run, not its body alone."""
    batch: Batch | None = None
    values: list[dict[Any, Any]] = field(default_factory=list)
    """Of each watcher, by site; of attention by layer."""
    counted: dict[torch.device, Tensor] = field(default_factory=dict)

    def forward(self, batch: Batch) -> list[Any]:
        """What a batch adds to every watcher."""
        values: list[dict[Any, Any]] = [{} for _ in self.watchers]
        self.batch, self.values, self.counted = batch, values, {batch.counted.device: batch.counted}
        try:
            hidden = run_pass(self.layout, batch.input_ids, batch.attention_mask, head=self.head)
            return [
                watcher.measure(batch, read, hidden) if isinstance(watcher, OutputWatcher) else read
                for watcher, read in zip(self.watchers, values, strict=True)
            ]
        finally:
            self.batch, self.values = None, []

    def see(
        self, index: int, site: Site, read: ReadSite, value: Tensor, sign_source: Tensor, routes: Tensor | None
    ) -> None:
        """Read one site for one watcher."""
        assert self.batch is not None
        device = value.device
        if device not in self.counted:
            self.counted[device] = self.batch.counted.to(device)
        self.values[index][site] = read(self.batch, SiteValue(value, sign_source, routes, self.counted[device]))

    def attend(
        self, index: int, watcher: AttentionWatcher, inputs: AttentionInputs
    ) -> Float[Tensor, "batch head token d_head"]:
        """The attention of one layer, by one watcher."""
        assert self.batch is not None
        output, self.values[index][inputs.layer] = watcher.attend(self.batch, inputs)
        return output
