"""What each neuron of an attention adds to it on a document: coordinates of its queries, keys, values and output.

The other half of PLND, beside the MLP's neurons in `removal`.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
from einops import einsum, rearrange

from babelscope.axes import Bool, Float, Float64, Tensor
from babelscope.controls import ShardSums
from babelscope.corpus import Batch
from babelscope.models import Layout
from babelscope.models.attention import AttentionInputs
from babelscope.models.weights import applied
from babelscope.probes.shard_sums import UnitSums, add_rows
from babelscope.probes.units.removal import top_of
from babelscope.recording.watchers import ReadSite, SiteValue
from babelscope.sites import Site
from babelscope.upstream.devices import fetched

STRUCTURES = ("query", "key", "value", "output")
"""The neurons of an attention: coordinates of each head's query, of each key-value head's key and value, and of what
the attention writes."""
Effects = dict[str, Float64[Tensor, "batch unit"]]
"""By structure: effect of each neuron on each document, heads side by side."""


class AttentionEffects(NamedTuple):
    """Two measures of the same removals on a batch."""

    exact: Effects
    """Root mean square over counted tokens of the change of the attention's output; of query, key and value."""
    parallel: Effects
    """Of query and key: root mean square of the change of the attention weights alone."""


def weights_of(scores: Float[Tensor, "*heads token other"], visible: Bool[Tensor, "token other"]) -> Tensor:
    """Attention weights: softmax over what a token sees."""
    return scores.masked_fill(~visible, float("-inf")).softmax(dim=-1)


def seen_tokens(length: int, window: int | None, device: torch.device) -> Bool[Tensor, "token other"]:
    """What each token sees: itself and those before it, `window` of them at most; pads on the right see, unseen."""
    distance = torch.arange(length, device=device)[:, None] - torch.arange(length, device=device)[None]
    return (distance >= 0) & (distance < (window or length))


def soft_capped(scores: Tensor, softcap: float | None) -> Tensor:
    """Scores with the soft cap of a family that has one."""
    return scores if softcap is None else softcap * torch.tanh(scores / softcap)


def attend_plainly(
    inputs: AttentionInputs, off: Mapping[str, Bool[Tensor, " unit"]] | None = None
) -> Float[Tensor, "batch head token d_head"]:
    """The heads' output by the formula, with some coordinates of queries, keys and values at zero.

    off: True at the neurons that are off, heads side by side. Right-padded rows only.
    """
    for name, units in (off or {}).items():
        part = getattr(inputs, name)
        mask = rearrange(units.to(part.device), "(g d) -> g 1 d", g=part.shape[1])
        inputs = inputs._replace(**{name: part.masked_fill(mask, 0)})
    return attention_pattern(inputs) @ value_of_heads(inputs)


def value_of_heads(inputs: AttentionInputs) -> Float[Tensor, "batch head token d_head"]:
    """The value that each query head reads."""
    return inputs.value.repeat_interleave(inputs.query.shape[1] // inputs.value.shape[1], dim=1)


def attention_pattern(inputs: AttentionInputs) -> Float[Tensor, "batch head token other"]:
    """Every head's attention weights by the formula; right-padded rows only."""
    query, groups = inputs.query, inputs.query.shape[1] // inputs.key.shape[1]
    key = inputs.key.repeat_interleave(groups, dim=1)
    scale = query.shape[-1] ** -0.5 if inputs.scale is None else inputs.scale
    visible = seen_tokens(query.shape[2], inputs.window, query.device)
    return weights_of(soft_capped(scale * query @ key.transpose(-1, -2), inputs.softcap), visible)


def attention_effects(
    inputs: AttentionInputs,
    counted: Bool[Tensor, "batch token"],
    rows: Float[Tensor, "head d_head hidden"],
) -> AttentionEffects:
    """Change of the attention when one coordinate of a query, key or value is removed, in every place of a document.

    With A = s·Q Kᵀ, P = softmax(A) over what is visible, and W_h the head's rows of the output projection:
    query d of head h: ‖(softmax(A − s·q_d k_dᵀ) − P) V W_h‖; key d of a key-value head: the same summed over the query
    heads that read it; value d: ‖Σ_h P_h v_d W_h[d]‖. Norms are root mean squares over counted tokens, in units of the
    residual stream. The parallel form leaves V W_h out: ‖softmax(A − s·q_d k_dᵀ) − P‖ over tokens and what they see.
    A coordinate is that of the vectors that attention reads: with rotary positions it is after the rotation, where it
    is a mix of two rows of the projection; without them it is a row.
    Source: Zhao et al. 2024, arXiv:2402.18815, whose code has the rank-one term without s and the same list for queries
    and keys.
    """
    wide = torch.float64 if inputs.query.dtype == torch.float64 else torch.float32
    query, groups = inputs.query.to(wide), inputs.query.shape[1] // inputs.key.shape[1]
    key, value = (part.to(wide).repeat_interleave(groups, dim=1) for part in (inputs.key, inputs.value))
    scale = query.shape[-1] ** -0.5 if inputs.scale is None else inputs.scale
    visible, rows = seen_tokens(query.shape[2], inputs.window, query.device), rows.to(query)
    scores = scale * query @ key.transpose(-1, -2)
    weights = weights_of(soft_capped(scores, inputs.softcap), visible)

    def mean(squares: Float[Tensor, "batch group token"]) -> Float64[Tensor, "batch group"]:
        """Root of the mean over counted tokens."""
        total = (squares.double() * counted[:, None]).sum(dim=2)
        return (total / counted.sum(dim=1, keepdim=True)).sqrt()

    def grouped(by_head: Tensor) -> Tensor:
        return by_head.unflatten(1, (-1, groups)).sum(dim=2)

    exact: dict[str, list[Tensor]] = {"query": [], "key": [], "value": []}
    parallel: dict[str, list[Tensor]] = {"query": [], "key": []}
    heads = weights @ value
    for d in range(query.shape[-1]):
        removed = scale * query[..., d, None] * key[..., d][:, :, None]
        change = weights_of(soft_capped(scores - removed, inputs.softcap), visible) - weights
        written = einsum(change @ value, rows, "b h t d, h d hidden -> b h t hidden")
        exact["query"].append(mean(written.square().sum(dim=-1)))
        exact["key"].append(mean(grouped(written).square().sum(dim=-1)))
        squares = change.square().sum(dim=-1)
        parallel["query"].append(mean(squares))
        parallel["key"].append(mean(grouped(squares)))
        written = einsum(heads[..., d], rows[:, d], "b h t, h hidden -> b h t hidden")
        exact["value"].append(mean(grouped(written).square().sum(dim=-1)))

    def side_by_side(parts: dict[str, list[Tensor]]) -> Effects:
        return {name: torch.stack(by_unit, dim=2).flatten(1).cpu() for name, by_unit in parts.items()}

    return AttentionEffects(side_by_side(exact), side_by_side(parallel))


class AttentionVotes:
    """Votes of documents for the neurons of attention, and their effects summed over the documents."""

    def __init__(
        self, layout: Layout, top_rate: float, parallel: bool, sums: Mapping[str, ShardSums[UnitSums]]
    ) -> None:
        """parallel: vote by the parallel form of queries and keys. sums: by structure; units are (layer, unit)."""
        self.layout, self.top_rate, self.parallel, self.sums = layout, top_rate, parallel, sums
        self.effect = {
            name: torch.zeros(len(part.languages), layout.n_layers, width_of(part, layout), dtype=torch.float64)
            for name, part in sums.items()
        }
        self.rows = [output_rows(layout, layer) for layer in range(layout.n_layers)]

    @property
    def hooks(self) -> Mapping[Site, ReadSite]:
        """What each attention writes."""
        return {Site(layer, "attn_out"): partial(self.read, layer) for layer in range(self.layout.n_layers)}

    def read(self, layer: int, batch: Batch, site_value: SiteValue) -> Float64[Tensor, "batch unit"]:
        """Root mean square of each coordinate: what is gone without it."""
        squares = (site_value.value.double().square() * site_value.counted[..., None]).sum(dim=1)
        return (squares / site_value.counted.sum(dim=1, keepdim=True)).sqrt().cpu()

    def attend(
        self, batch: Batch, inputs: AttentionInputs
    ) -> tuple[Float[Tensor, "batch head token d_head"], AttentionEffects]:
        """The heads' output, and what each neuron does to it."""
        counted = batch.counted.to(inputs.query.device)
        return attend_plainly(inputs), attention_effects(inputs, counted, self.rows[inputs.layer])

    def add(self, batch: Batch, values: dict[Any, Any]) -> None:
        """Add a batch of one language."""
        language, one_each = batch.documents[0].language, torch.ones(len(batch.documents))
        for layer in range(self.layout.n_layers):
            effects: AttentionEffects = values[layer]
            by_structure = {**effects.exact, "output": values[Site(layer, "attn_out")]}
            voted_by = {**by_structure, **effects.parallel} if self.parallel else by_structure
            for name, effect in by_structure.items():
                self.effect[name][language, layer] += effect.sum(dim=0)
                top = top_of(voted_by[name], self.top_rate).double()
                add_rows(self.sums[name], batch, top, layer * effect.shape[1], tokens=one_each if layer == 0 else None)


def output_rows(layout: Layout, layer: int) -> Float[Tensor, "head d_head hidden"]:
    """Each head's part of the output projection: what a coordinate of its output writes."""
    layout.check(Site(layer, "attn_heads"))
    projection = layout.layer(layer).get_submodule(layout.family.heads_out)
    with fetched(projection):
        rows = applied(projection, torch.arange(layout.width("attn_heads")), layout.family.heads_out)
    return rearrange(rows.detach(), "(h d) hidden -> h d hidden", h=layout.n_heads)


def width_of(sums: ShardSums[UnitSums], layout: Layout) -> int:
    """Units of a layer."""
    return sums.by_shard.total.shape[2] // layout.n_layers


def structure_widths(layout: Layout, key_heads: int) -> dict[str, int]:
    """Neurons of a layer's attention by structure."""
    d_head = layout.width("attn_heads") // layout.n_heads
    return {
        "query": layout.n_heads * d_head,
        "key": key_heads * d_head,
        "value": key_heads * d_head,
        "output": layout.width("attn_out"),
    }
