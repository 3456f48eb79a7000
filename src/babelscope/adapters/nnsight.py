"""The same places in nnsight: read and write at a Site inside `model.trace`, and observe a model that runs elsewhere.

nnsight is imported by whoever wraps the model; `traced` is that wrapper (`TransformersModel`).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, get_args

import torch
from transformers import PreTrainedTokenizerBase

from babelscope.artifacts import Observation
from babelscope.artifacts.stream import LARGE_LEFT, ROUNDS, STREAM_SITES, length_bins, unit_bar
from babelscope.axes import Tensor
from babelscope.corpus import Batch, Corpus, Texts, as_corpus, pad_of
from babelscope.errors import PrerequisiteError, SiteError
from babelscope.models import Layout, layout_of, measured
from babelscope.models.text_length import text_length
from babelscope.recording.addends import Addend, StreamAddend
from babelscope.recording.pass_plan import PassPlan
from babelscope.recording.pass_settings import PassSettings, parse_sites
from babelscope.recording.site_sums import PassSums, first_tokens
from babelscope.recording.tally import Tally
from babelscope.recording.walk import CPU_TOKENS, walk
from babelscope.recording.watchers import Watcher
from babelscope.sites import At, Site

PLACES = {"here": False, "local": "local", "ndif": True}
"""Where a model runs, as nnsight's `remote`: this process, its rehearsal of a remote run, NDIF's servers."""

_ORDER: dict[At, float] = {**{at: float(number) for number, at in enumerate(get_args(At))}, "router": 4.5}
"""Places of a layer in the order in which a pass meets them; nnsight must ask in that order."""


def layout_in(traced: Any) -> Layout:
    """The layout of the model inside a wrapper; its weights may be elsewhere."""
    return layout_of(traced._module)


def in_order(sites: Sequence[Site], n_layers: int) -> list[Site]:
    """Sites as a pass meets them, which is the only order in which nnsight gives them."""

    def when(site: Site) -> tuple[int, float]:
        ends = {"embed": -1, "logits": n_layers}
        return ends.get(site.at, site.layer or 0), _ORDER[site.at]

    return sorted(sites, key=when)


def read(traced: Any, site: Site, *, tokens: int | None = None) -> Tensor:
    """Inside a trace: the value at a site, in the shape that `read_site` gives; save what shall outlive the trace.

    tokens: columns of the batch; needed where a module has batch and token in one axis (OPT's MLP, routers).
    Raises SiteError where the model has no such site or no module holds it.
    """
    layout = layout_in(traced)
    place = layout.place(site)
    envoy = traced.get(place.path)
    value = envoy.input if place.side == "input" else envoy.output
    value = value[0] if isinstance(value, tuple) else value
    if site.at == "attn_heads":
        return value.unflatten(-1, (layout.n_heads, -1))
    if value.ndim == 3:
        return value
    if tokens is None:
        raise SiteError(f"site '{site}': rows of batch and token came in one axis; pass tokens=, columns of the batch")
    return value.unflatten(0, (-1, tokens))


def write(traced: Any, site: Site, value: Tensor) -> None:
    """Inside a trace: put a value at a site, in the shape that `read` gives.

    Raises SiteError where a module's output or input is not all that must change: `router`, and `resid_mid` in most
    families.
    """
    layout = layout_in(traced)
    _check_writable(layout, site)
    place = layout.place(site)
    envoy = traced.get(place.path)
    if place.side == "input":
        envoy.input = value.reshape(envoy.input.shape)
        return
    old = envoy.output
    first = old[0] if isinstance(old, tuple) else old
    new = value.reshape(first.shape)
    envoy.output = (new, *old[1:]) if isinstance(old, tuple) else new


def apply_changes(
    traced: Any, changes: Mapping[Site, Callable[[Tensor], Tensor]], *, tokens: int | None = None
) -> None:
    """Inside a trace: steer this pass with what `steering.single.changes_of_pass` made.

    Here only: the changes are this library's functions, which a remote server does not have.
    """
    layout = layout_in(traced)
    for site in in_order(list(changes), layout.n_layers):
        _check_writable(layout, site)
        write(traced, site, changes[site](read(traced, site, tokens=tokens)))


def _check_writable(layout: Layout, site: Site) -> None:
    if site.at == "router" or (site.at == "resid_mid" and not layout.family.stream):
        raise SiteError(
            f"site '{site}': in {layout.model.config.model_type} no single module can be written there with nnsight; "
            "expected another site, such as attn_out; or use steer"
        )


def observe_traced(
    traced: Any,
    tokenizer: PreTrainedTokenizerBase,
    texts: Texts,
    *,
    where: str = "here",
    allow_upload: bool = False,
    sites: Sequence[str | Site] = ("mlp_gate",),
    tokens_per_language: int | None = 100_000,
    shards: int = 32,
    batch_size: int = 32,
    max_length: int | None = None,
    progress: bool = False,
) -> Observation:
    """`babelscope.observe` through nnsight: the same counts, also of a model that runs elsewhere.

    sites: `mlp_gate` alone unless told, as not every site can be read of a model elsewhere.
    where: "here"; "local", nnsight's rehearsal of a remote run; or "ndif", which needs allow_upload=True.
    With "ndif" there are sent, for each batch: token ids, the attention mask, which tokens are counted, the names of
    the modules to read, and the code of the sums. Sums come back. The text itself, languages and file names stay.
    Raises PrerequisiteError without that permission, SiteError for neurons of fused experts, and for `mlp_inner` of
    weights that are not here, whose lengths an Observation holds.
    """
    layout, corpus = layout_in(traced), as_corpus(texts)
    settings = PassSettings(
        sites=parse_sites(layout, sites),
        tokens_per_language=tokens_per_language,
        shards=shards,
        part=(0, 1),
        batch_tokens=CPU_TOKENS,
        batch_size=batch_size,
        max_length=text_length(layout, max_length),
    )
    _check_permission(corpus, where, allow_upload)
    plan, cpu = PassPlan(layout, tokenizer, corpus, settings), torch.device("cpu")
    tally, sums = Tally.zeros(len(corpus), shards), PassSums(layout, settings.sites, len(corpus), shards, device=cpu)
    walk(
        layout,
        plan.documents(),
        [sums, tally],
        pad=pad_of(tokenizer),
        batch_tokens=settings.batch_tokens,
        batch_size=batch_size,
        progress=plan.progress() if progress else None,
        passes=partial(traced_passes, traced, PLACES[where]),
    )
    return plan.observation(tally, sums.records())


def _check_permission(corpus: Corpus, where: str, allow_upload: bool) -> None:
    if where not in PLACES:
        raise PrerequisiteError(f"where={where!r} is unknown; expected one of {', '.join(PLACES)}")
    if where == "ndif" and not allow_upload:
        documents = sum(len(documents_of_language) for documents_of_language in corpus.values())
        raise PrerequisiteError(
            f"where='ndif' sends the token ids of up to {documents} documents and the names of the modules read to "
            "NDIF's servers; expected permission; pass allow_upload=True if these texts may leave this machine"
        )


Place = tuple[str, str, bool, float | None]
"""Module, side, whether the input's sign says active, and at stream sites the bar of `ordinary_lengths`."""


@contextmanager
def traced_passes(
    traced: Any, remote: bool | str, layout: Layout, watchers: Sequence[Watcher]
) -> Iterator[Callable[[Batch], list[dict[Site, Addend]]]]:
    """Passes inside nnsight's traces, in which the addends of `PassSums` are made; no hook is set."""
    sites = in_order([site for watcher in watchers for site in watcher.hooks], layout.n_layers)
    places = [_place_of(layout, site) for site in sites]

    def forward(batch: Batch) -> list[dict[Site, Addend]]:
        inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
        parts = traced_sums(traced, places, inputs, batch.counted, remote)
        addends = {
            site: traced_addend([tensor.cpu() for tensor in tensors], batch)
            for site, tensors in zip(sites, parts, strict=True)
        }
        return [{site: addends[site] for site in watcher.hooks} for watcher in watchers]

    with measured(layout):
        yield forward


def _place_of(layout: Layout, site: Site) -> Place:
    if site.at == "mlp_inner" and next(layout.layer(site.layer or 0).parameters()).is_meta:
        raise SiteError(f"site '{site}': its weights are not here, their lengths are needed; observe mlp_gate")
    place = layout.place(site)
    bar = unit_bar(LARGE_LEFT, layout.width(site.at)) if site.at in STREAM_SITES else None
    return place.path, place.side, site.at == "mlp_gate", bar


def traced_addend(parts: list[Tensor], batch: Batch) -> Addend:
    """What was traced at one place, in the form that sums commit."""
    active, total, square, norm, *stream_parts = parts
    added = None
    if stream_parts:
        later_tokens = batch.counted & ~first_tokens(batch.counted)
        added = StreamAddend(stream_parts[0], stream_parts[1], length_bins(stream_parts[2][later_tokens.flatten()]))
    return Addend(active, total, square, norm, None, added)


def traced_sums(
    traced: Any,
    places: list[Place],
    inputs: dict[str, Tensor],
    counted: Tensor,
    remote: bool | str,
) -> list[tuple[Tensor, ...]]:
    """Active tokens of each document, sums, squares and summed norms at each place, in places' order.

    At stream sites also sums and squares of first tokens, and `ordinary_lengths` of all.

    The block is sent as it stands: it names nothing but torch's methods.
    """
    rounds = ROUNDS
    with traced.trace(inputs, remote=remote):
        sums: Any = []
        for path, side, signed, bar in places:
            envoy = traced.get(path)
            sign: Any = envoy.input if signed or side == "input" else None
            value: Any = sign if side == "input" else envoy.output
            value = value[0] if isinstance(value, tuple) else value
            sign = value if sign is None else sign
            counted_there = counted.to(value.device)
            rows, length = counted_there.shape
            weight = counted_there.double().reshape(-1)
            squares = value.reshape(rows * length, -1).double()
            active = ((sign.reshape(rows, length, -1) > 0) & counted_there.unsqueeze(-1)).sum(dim=1).float()
            total = weight @ squares
            squares = squares * squares
            parts = (active, total, weight @ squares, weight @ squares.sum(dim=1).sqrt())
            if bar is not None:
                first = (counted_there & (counted_there.cumsum(dim=1) == 1)).double().reshape(-1)
                parts = (*parts, first @ value.reshape(rows * length, -1).double(), first @ squares)
                for _ in range(rounds):
                    squares = squares * (squares <= bar * squares.sum(dim=1, keepdim=True))
                parts = (*parts, squares.sum(dim=1).sqrt())
            sums.append(parts)
        sums = sums.save()
    return sums
