"""A pass under way: documents streamed once through a model, and what its sites do added up."""

import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from functools import partial
from typing import Any

import torch
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerBase

from babelscope.artifacts import Observation, hash_text
from babelscope.axes import Tensor
from babelscope.corpus import (
    Batch,
    Corpus,
    TokenDocument,
    batch_documents,
    limit_tokens,
    pad_of,
    shard_of,
    tokenize_documents,
)
from babelscope.errors import ArtifactError, MeasurementError
from babelscope.files.state_folder import RunState, StateFolder, restore
from babelscope.models import Layout, origin_of, positions_note
from babelscope.models.measuring import measured, run_pass
from babelscope.recording.reading import Reading
from babelscope.recording.sums import SiteSums, Workspace
from babelscope.recording.tally import Tally

log = logging.getLogger(__name__)
WINDOW = 1024
"""Documents tokenized and sorted by length at a time: memory does not grow with the corpus."""


class Pass:
    """One pass under way: totals, and the number of batches they hold."""

    def __init__(self, layout: Layout, tokenizer: PreTrainedTokenizerBase, corpus: Corpus, reading: Reading):
        self.layout, self.tokenizer, self.corpus, self.reading = layout, tokenizer, corpus, reading
        self.languages = tuple(corpus)
        self.tally = Tally.zeros(len(corpus), reading.shards)
        self.sums = [SiteSums(layout, at, layers, len(corpus), reading.shards) for at, layers in reading.sites.items()]
        self.done = 0
        self.room = reading.batch_tokens
        self.state: StateFolder | None = None
        self.resumed_tokens = 0
        self.spaces: dict[torch.device, Workspace] = {}
        self.seen: list[tuple[SiteSums, int, Any]] = []
        """Of the batch under way."""
        self.counted: dict[torch.device, Tensor] = {}
        """The same, by device."""

    def settings(self) -> dict[str, Any]:
        """Every parameter of the pass as JSON."""
        values = {**asdict(self.reading), "part": list(self.reading.part)}
        sites = {at: list(layers) for at, layers in self.reading.sites.items()}
        return {**values, "sites": sites, **positions_note(self.layout.model)}

    def batches(self) -> Iterator[Batch]:
        """All batches of the pass in their fixed order, one language at a time."""
        pad = pad_of(self.tokenizer)
        mine, of = self.reading.part
        shards = self.reading.shards or of
        for k, documents in enumerate(self.corpus.values()):
            left = self.reading.tokens_per_language
            for start in range(0, len(documents), WINDOW):
                if left is not None and left <= 0:
                    break
                window = documents[start : start + WINDOW]
                tokens = tokenize_documents(self.tokenizer, window, k, max_length=self.reading.max_length, name=None)
                kept = limit_tokens(tokens, left)
                left = None if left is None else left - sum(document.n_counted for document in kept)
                kept = [document for document in kept if shard_of(document.id, shards) % of == mine]
                if kept:
                    yield from self.cut_batches(kept, pad)

    def cut_batches(self, documents: list[TokenDocument], pad: int) -> list[Batch]:
        """Batches of some documents of one language."""
        size = self.reading.batch_size
        if size is None:
            return batch_documents(documents, batch_tokens=self.reading.batch_tokens, pad=pad)
        longest = max(len(document.tokens) for document in documents)
        ordered = sorted(documents, key=lambda document: -len(document.tokens))
        groups = [ordered[start : start + size] for start in range(0, len(ordered), size)]
        return [batch for group in groups for batch in batch_documents(group, batch_tokens=size * longest, pad=pad)]

    @torch.no_grad()
    def stream(self, *, progress: bool, checkpoint_seconds: float, stop: Callable[[], bool]) -> None:
        """Read every batch that was not read before."""
        limit = self.reading.tokens_per_language
        total = limit * len(self.languages) // self.reading.part[1] if limit else None
        saved = time.monotonic()
        bar = tqdm(total=total, initial=self.resumed_tokens, unit="tok", unit_scale=True, disable=not progress)
        number = -1
        with bar, measured(self.layout), self.watched():
            for number, batch in enumerate(self.batches()):
                if number < self.done:
                    continue
                if stop():
                    self.save_state()
                    raise KeyboardInterrupt
                bar.set_description(self.languages[batch.documents[0].language])
                self.read(batch)
                self.done = number + 1
                bar.update(sum(document.n_counted for document in batch.documents))
                if time.monotonic() - saved >= checkpoint_seconds:
                    self.save_state()
                    saved = time.monotonic()
        if self.done != number + 1:
            raise ArtifactError(
                f"a pass that was resumed after batch {self.done} of {number + 1}; expected fewer; its checkpoint is "
                "damaged; remove it to start anew"
            )
        self.report_shortfall()

    def read(self, batch: Batch) -> None:
        """Add one batch; one that does not fit in memory is halved, and so are later ones of its size."""
        language = batch.documents[0].language
        if batch.input_ids.numel() > self.room and len(batch.documents) > 1:
            for half in batch.halves():
                self.read(half)
            return
        halves: list[Batch] = []
        addends: list[tuple[SiteSums, int, Any]] = []
        try:
            addends = self.forward(batch)
        except (torch.OutOfMemoryError, RuntimeError) as err:
            if not is_out_of_memory(err):
                raise
            halves = [*batch.halves()]
            self.room = halves[0].input_ids.numel()
            log.warning("batch of %d tokens did not fit; going on with %d", batch.input_ids.numel(), self.room)
        if halves:
            for half in halves:
                self.read(half)
            return
        shard = torch.tensor(
            [shard_of(d.id, self.reading.shards) if self.reading.shards else 0 for d in batch.documents]
        )
        for sums, index, addend in addends:
            sums.commit(index, addend, language, shard)
        self.tally.add(batch.documents)

    def forward(self, batch: Batch) -> list[tuple[SiteSums, int, Any]]:
        """What a batch adds at every site, in the form that the site's sums commit; nothing is added yet.

        Only while `watched` is open.
        """
        self.seen, self.counted = [], {batch.counted.device: batch.counted}
        run_pass(self.layout, batch.input_ids, batch.attention_mask, head="logits" in self.reading.sites)
        return self.seen

    @contextmanager
    def watched(self) -> Iterator[None]:
        """While open every forward pass of the model is seen at the sites: one set of hooks for the whole pass."""
        with ExitStack() as stack:
            for sums in self.sums:
                for index, site in enumerate(sums.sites):
                    stack.enter_context(self.layout.watch(site, partial(self.see, sums, index)))
            yield

    def see(self, sums: SiteSums, index: int, value: Tensor, sign: Tensor, routes: Tensor | None) -> None:
        """Work out what the batch under way adds at a site."""
        device = value.device
        if device not in self.counted:
            self.counted[device] = next(iter(self.counted.values())).to(device)
        space = self.spaces.setdefault(device, Workspace.empty(device))
        self.seen.append((sums, index, sums.addend(value, sign, routes, self.counted[device], space)))

    @property
    def controls(self) -> dict[str, int]:
        """Control tokens that are spelt in the text and stayed text, by language that has some."""
        counts = zip(self.languages, self.tally.controls.tolist(), strict=True)
        return {tag: count for tag, count in counts if count}

    def report_shortfall(self) -> None:
        """Log languages with too little text, tokens past max_length, and control tokens that were read as text."""
        if self.controls:
            listed = ", ".join(f"{tag} {count}" for tag, count in self.controls.items())
            log.warning("control tokens spelt in the text stay text: %s; read chats as conversations", listed)
        limit = self.reading.tokens_per_language
        short = {
            tag: int(count)
            for tag, count in zip(self.languages, self.tally.tokens, strict=True)
            if limit is not None and self.reading.part == (0, 1) and int(count) < limit
        }
        if short:
            log.warning("fewer than %s tokens: %s", limit, ", ".join(f"{tag} {count}" for tag, count in short.items()))
        cut = int(self.tally.truncated.sum())
        if cut:
            log.warning("%d tokens past max_length %d were left out", cut, self.reading.max_length)

    def fingerprint(self) -> str:
        """Hash of everything that decides the sums."""
        origin = origin_of(self.layout.model, self.tokenizer)
        parts = {
            **self.settings(),
            **origin.hashes,
            "revision": origin.revision,
            "corpus": self.corpus.hash,
            "languages": list(self.languages),
        }
        return hash_text(json.dumps(parts, sort_keys=True))

    def tensors(self) -> dict[str, Tensor]:
        """All totals by name."""
        state = {name: tensor for sums in self.sums for name, tensor in sums.state().items()}
        return {**state, **{f"tally/{name}": tensor for name, tensor in vars(self.tally).items()}}

    def resume(self, state: StateFolder) -> None:
        """Keep the pass in this folder, and go on from what is there; raises ArtifactError if it is another pass's."""
        self.state = state
        saved = state.read()
        if saved is not None:
            restore(self.tensors(), saved.tensors, state.folder)
            self.done, self.resumed_tokens = saved.done, int(self.tally.tokens.sum())

    def save_state(self) -> None:
        """Write where the pass stands, if it was given a folder for that."""
        if self.state is not None:
            self.state.write(RunState(self.done, self.tensors(), {"tokens": int(self.tally.tokens.sum())}))

    def observation(self) -> Observation:
        """The totals as an Observation."""
        if not bool(self.tally.tokens.any()):
            raise MeasurementError("no token was counted; expected text in this part; check the corpus and the part")
        (i, n), text = self.reading.part, self.corpus.facts()
        return Observation(
            origin=origin_of(self.layout.model, self.tokenizer),
            languages=self.languages,
            records={sums.at: sums.record() for sums in self.sums},
            token_counts=self.tally.tokens,
            shard_tokens=self.tally.shard_tokens,
            documents=self.tally.documents,
            truncated=self.tally.truncated,
            parts=(f"{self.corpus.hash}:{i}/{n}",),
            settings={
                **self.settings(),
                "corpus": text["name"],
                "corpus_hash": text["hash"],
                "text": text,
                "controls": self.controls,
            },
        )


def is_out_of_memory(err: RuntimeError) -> bool:
    """Whether an error of torch means that memory ran out; the CPU allocator has no class of its own for it."""
    return isinstance(err, torch.OutOfMemoryError) or "allocate memory" in str(err) or "not enough memory" in str(err)
