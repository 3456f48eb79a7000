"""Stream documents through a model once and add up what its sites do."""

import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from babelscope.artifacts import Observation, hash_text
from babelscope.axes import Int64, Tensor
from babelscope.corpus import (
    Batch,
    Corpus,
    Texts,
    TokenDocument,
    as_corpus,
    batch_documents,
    limit_tokens,
    pad_of,
    shard_of,
    tokenize_documents,
)
from babelscope.errors import ArtifactError, MeasurementError, PrerequisiteError, SiteError
from babelscope.models import Layout, layout_of, origin_of
from babelscope.recording.sums import SiteSums, Workspace
from babelscope.sites import WHOLE_MODEL, At, Site, check_at

log = logging.getLogger(__name__)
WINDOW = 1024
"""Documents tokenized and sorted by length at a time: memory does not grow with the corpus."""


@dataclass(frozen=True)
class ObservationPlan:
    """Size of a pass, before it runs."""

    tokens: int
    """Tokens that would be counted at most."""
    result_bytes: int
    """Bytes of the saved Observation."""
    sites: tuple[str, ...]


@dataclass(frozen=True)
class Reading:
    """What is read and how: everything that decides the sums."""

    sites: dict[At, tuple[int | None, ...]]
    tokens_per_language: int | None
    shards: int
    part: tuple[int, int]
    batch_tokens: int
    batch_size: int | None
    max_length: int

    def __post_init__(self) -> None:
        i, n = self.part
        faults = [
            fault
            for fault, wrong in (
                (f"tokens_per_language {self.tokens_per_language} (1 or more)", (self.tokens_per_language or 1) < 1),
                (f"shards {self.shards} (0 or more)", self.shards < 0),
                (f"part {i}/{n} (i/n with 0 <= i < n)", not 0 <= i < n),
                (f"part {i}/{n} of {self.shards} shards (as many parts as shards at most)", 0 < self.shards < n),
                (f"batch_size {self.batch_size} (1 or more)", self.batch_size is not None and self.batch_size < 1),
                (f"max_length {self.max_length} (1 or more)", self.max_length < 1),
            )
            if wrong
        ]
        if faults:
            raise SiteError(f"a pass can not have {', '.join(faults)}; expected what stands in brackets; correct it")


@dataclass(eq=False)
class Tally:
    """Sums that belong to the text, not to a site."""

    tokens: Int64[Tensor, " language"]
    shard_tokens: Int64[Tensor, "shard language"]
    documents: Int64[Tensor, " language"]
    truncated: Int64[Tensor, " language"]

    @classmethod
    def zeros(cls, languages: int, shards: int) -> "Tally":
        """Nothing read yet."""
        rows = (torch.zeros(languages, dtype=torch.int64) for _ in range(3))
        tokens, documents, truncated = rows
        return cls(tokens, torch.zeros(shards, languages, dtype=torch.int64), documents, truncated)

    def add(self, documents: Sequence[TokenDocument]) -> None:
        """Count documents that were read."""
        for document in documents:
            k, count = document.language, document.n_counted
            self.tokens[k] += count
            if len(self.shard_tokens):
                self.shard_tokens[shard_of(document.id, len(self.shard_tokens)), k] += count
            self.documents[k] += 1
            self.truncated[k] += document.truncated


def parse_sites(layout: Layout, sites: Sequence[str | Site]) -> dict[At, tuple[int | None, ...]]:
    """Layers by kind of site: "mlp_gate" means all layers, "5.resid_out" or a Site means one."""
    wanted: dict[At, list[int | None]] = {}
    for site in sites:
        if isinstance(site, str) and "." not in site:
            at = check_at(site)
            layers: list[int | None] = [None] if at in WHOLE_MODEL else list(range(layout.n_layers))
        else:
            one = site if isinstance(site, Site) else Site.parse(site)
            at, layers = one.at, [one.layer]
        for layer in layers:
            layout.check(Site(layer, at))
        wanted.setdefault(at, []).extend(layer for layer in layers if layer not in wanted.get(at, []))
    if not wanted:
        raise SiteError("no site came; expected at least one such as 'mlp_gate'; name the sites")
    return {at: tuple(sorted(layers, key=lambda layer: layer or 0)) for at, layers in wanted.items()}


def plan_observation(
    model: PreTrainedModel,
    texts: Texts,
    *,
    sites: Sequence[str | Site] = ("mlp_gate",),
    tokens_per_language: int | None = 100_000,
    shards: int = 32,
) -> ObservationPlan:
    """How large a pass would be; nothing is run."""
    layout, corpus = layout_of(model), as_corpus(texts)
    wanted = parse_sites(layout, sites)
    units = sum(len(layers) * layout.width(at) for at, layers in wanted.items())
    limit = tokens_per_language or sum(len(d.text) for documents in corpus.values() for d in documents)
    names = tuple(str(Site(layer, at)) for at, layers in wanted.items() for layer in layers)
    return ObservationPlan(limit * len(corpus), units * len(corpus) * (24 + 4 * shards), names)


def observe(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Texts,
    *,
    sites: Sequence[str | Site] = ("mlp_gate",),
    tokens_per_language: int | None = 100_000,
    shards: int = 32,
    part: tuple[int, int] = (0, 1),
    batch_size: int | str = "auto",
    max_length: int = 512,
    checkpoint: str | Path | None = None,
    checkpoint_seconds: float = 20.0,
    progress: bool = False,
    stop: Callable[[], bool] = lambda: False,
) -> Observation:
    """Stream labelled text through a model once and add up what its units do, by language.

    sites: names such as "mlp_gate" (all layers) or "5.resid_out" (one).
    tokens_per_language: a maximum, met exactly; a shortfall is logged and stays visible in `.tokens`. None: all text.
    shards: document shards kept apart for bootstraps and splits; 0 keeps none.
    part: (i, n) reads only documents whose shard mod n is i; the n parts add up to the whole.
    batch_size: documents a batch, or "auto" (4,096 padded tokens, 32,768 on a GPU); one that does not fit is halved.
    max_length: tokens a document at most, BOS included; what is cut is counted in `.truncated`.
    checkpoint: a folder in which an interrupted pass is kept, and from which it goes on, bit for bit.
    stop: asked between batches; True saves the checkpoint and raises KeyboardInterrupt.

    Counts are exact int64: tokens with pre-activation > 0 at mlp_gate, value > 0 elsewhere. Sums and squares are
    added in float64. Pads, BOS and other special tokens are never counted.
    Raises MeasurementError where a site gives NaN or infinity, CorpusError for a language without text.
    """
    layout, corpus = layout_of(model), as_corpus(texts)
    auto = 4_096 if layout.device_of(Site(0, "resid_in")).type == "cpu" else 32_768
    reading = Reading(
        sites=parse_sites(layout, sites),
        tokens_per_language=tokens_per_language,
        shards=shards,
        part=part,
        batch_tokens=auto,
        batch_size=None if batch_size == "auto" else int(batch_size),
        max_length=max_length,
    )
    run = Pass(layout, tokenizer, corpus, reading)
    if checkpoint is not None:
        run.open_checkpoint(Path(checkpoint))
    was_training = model.training
    model.eval()
    try:
        run.stream(progress=progress, checkpoint_seconds=checkpoint_seconds, stop=stop)
    finally:
        model.train(was_training)
    return run.observation()


class Pass:
    """One pass under way: totals, and the number of batches they hold."""

    def __init__(self, layout: Layout, tokenizer: PreTrainedTokenizerBase, corpus: Corpus, reading: Reading):
        self.layout, self.tokenizer, self.corpus, self.reading = layout, tokenizer, corpus, reading
        self.languages = tuple(corpus)
        self.tally = Tally.zeros(len(corpus), reading.shards)
        self.sums = [SiteSums(layout, at, layers, len(corpus), reading.shards) for at, layers in reading.sites.items()]
        self.done = 0
        self.room = reading.batch_tokens
        self.folder: Path | None = None
        self.resumed_tokens = 0
        self.spaces: dict[torch.device, Workspace] = {}
        self.seen: list[tuple[SiteSums, int, Any]] = []
        """Of the batch under way."""
        self.counted: dict[torch.device, Tensor] = {}
        """The same, by device."""

    def settings(self) -> dict[str, Any]:
        """Every parameter of the pass as JSON."""
        values = {**asdict(self.reading), "part": list(self.reading.part)}
        return {**values, "sites": {at: list(layers) for at, layers in self.reading.sites.items()}}

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
                tokens = tokenize_documents(self.tokenizer, window, k, max_length=self.reading.max_length)
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
        with bar, self.watched():
            for number, batch in enumerate(self.batches()):
                if number < self.done:
                    continue
                if stop():
                    self.save_checkpoint()
                    raise KeyboardInterrupt
                bar.set_description(self.languages[batch.documents[0].language])
                self.read(batch)
                self.done = number + 1
                bar.update(sum(document.n_counted for document in batch.documents))
                if time.monotonic() - saved >= checkpoint_seconds:
                    self.save_checkpoint()
                    saved = time.monotonic()
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
        self.layout.check_tokens(batch.input_ids)
        device = self.layout.device_of(Site(None, "embed"))
        network = self.layout.model if "logits" in self.reading.sites else self.layout.body
        network(input_ids=batch.input_ids.to(device), attention_mask=batch.attention_mask.to(device), use_cache=False)
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

    def report_shortfall(self) -> None:
        """Log languages with too little text, and tokens past max_length."""
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
        origin = asdict(origin_of(self.layout.model, self.tokenizer))
        parts = {**self.settings(), **origin, "corpus": self.corpus.hash, "languages": list(self.languages)}
        return hash_text(json.dumps({**parts, "model": ""}, sort_keys=True))

    def tensors(self) -> dict[str, Tensor]:
        """All totals by name."""
        state = {name: tensor for sums in self.sums for name, tensor in sums.state().items()}
        return {**state, **{f"tally/{name}": tensor for name, tensor in vars(self.tally).items()}}

    def open_checkpoint(self, folder: Path) -> None:
        """Use a folder for checkpoints, and go on from the one in it; raises ArtifactError if it is another pass's."""
        self.folder = folder
        if not (folder / "state.json").is_file():
            return
        try:
            state = json.loads((folder / "state.json").read_text())
            fingerprint, done, held = state["fingerprint"], int(state["done"]), load_file(folder / state["file"])
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as err:
            raise ArtifactError(
                f"{folder}: damaged ({err}); expected a checkpoint; remove the folder and start"
            ) from err
        if fingerprint != self.fingerprint():
            raise ArtifactError(
                f"{folder}: holds another pass (text, sites, model or settings differ); expected the same command; "
                "repeat that command, or remove the folder to start anew"
            )
        for name, tensor in self.tensors().items():
            tensor.copy_(held[name])
        self.done, self.resumed_tokens = done, int(self.tally.tokens.sum())
        (folder / "resumed.json").write_text(json.dumps({"tokens": self.resumed_tokens}))

    def save_checkpoint(self) -> None:
        """Write the totals, then the small file that names them: a torn write is never read."""
        if self.folder is None:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            name = f"totals-{self.done}.safetensors"
            save_file({key: tensor.cpu().contiguous() for key, tensor in self.tensors().items()}, self.folder / name)
            state = {"fingerprint": self.fingerprint(), "done": self.done, "file": name}
            temporary = self.folder / "state.json.new"
            temporary.write_text(json.dumps(state))
            temporary.replace(self.folder / "state.json")
        except OSError as err:
            raise PrerequisiteError(f"{self.folder}: checkpoint not written ({err}); free space and resume") from err
        for old in self.folder.glob("totals-*.safetensors"):
            if old.name != name:
                old.unlink()

    def observation(self) -> Observation:
        """The totals as an Observation."""
        if not bool(self.tally.tokens.any()):
            raise MeasurementError("no token was counted; expected text in this part; check the corpus and the part")
        i, n = self.reading.part
        return Observation(
            origin=origin_of(self.layout.model, self.tokenizer),
            languages=self.languages,
            records={sums.at: sums.record() for sums in self.sums},
            token_counts=self.tally.tokens,
            shard_tokens=self.tally.shard_tokens,
            documents=self.tally.documents,
            truncated=self.tally.truncated,
            parts=(f"{self.corpus.hash}:{i}/{n}",),
            settings={**self.settings(), "corpus": self.corpus.name, "corpus_hash": self.corpus.hash},
        )


def is_out_of_memory(err: RuntimeError) -> bool:
    """Whether an error of torch means that memory ran out; the CPU allocator has no class of its own for it."""
    return isinstance(err, torch.OutOfMemoryError) or "allocate memory" in str(err) or "not enough memory" in str(err)
