"""What every attention head writes and where it looks, summed while text goes through the model."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from babelscope_kernels.attention_stats import attention_stats
from einops import einsum, rearrange, reduce

from babelscope.axes import Bool, Float, Float64, Tensor
from babelscope.controls import ShardSums
from babelscope.corpus import Batch
from babelscope.models import Layout
from babelscope.models.attention import AttentionInputs
from babelscope.models.weights import applied
from babelscope.probes.shard_sums import UnitSums, add_rows
from babelscope.recording.host_copies import on_host
from babelscope.recording.watchers import ReadSite, SiteValue
from babelscope.sites import Site
from babelscope.upstream.devices import fetched


@torch.no_grad()
def gram_of(layout: Layout, layer: int) -> Float[Tensor, "head d_head other"]:
    """W_hᵀ W_h of each head's part of the output projection: ‖W_h z‖² = zᵀ (W_hᵀ W_h) z.

    W is what the module gives; PrerequisiteError where that is no linear map, or hooks of others may change it.
    """
    layout.check(Site(layer, "attn_heads"))
    projection = layout.layer(layer).get_submodule(layout.family.heads_out)
    with fetched(projection):
        rows = applied(projection, torch.arange(layout.width("attn_heads")), layout.family.heads_out).float()
    part = rearrange(rows, "(h d) hidden -> h d hidden", h=layout.n_heads)
    return einsum(part, part, "h d hidden, h e hidden -> h d e")


class HeadOutput(NamedTuple):
    """What a layer's heads write for a batch."""

    written: Float64[Tensor, "batch head"]
    output: Float64[Tensor, "head d_head"]


@dataclass(frozen=True, eq=False)
class HeadSums:
    """Sums of every measure over tokens but the first of each document, and of the heads' outputs."""

    layout: Layout
    sums: ShardSums[UnitSums]
    """Units are (measure, layer, head)."""
    output: Float64[Tensor, "language layer head d_head"]
    grams: list[Float[Tensor, "head d_head other"]]

    @property
    def hooks(self) -> Mapping[Site, ReadSite]:
        """The heads of every layer."""
        return {Site(layer, "attn_heads"): partial(self.read, layer) for layer in range(self.layout.n_layers)}

    def read(self, layer: int, batch: Batch, site_value: SiteValue) -> HeadOutput:
        """What a layer's heads write."""
        past_first_token, z = past_first(site_value.counted), site_value.value.float()
        squares = einsum(z, self.grams[layer].to(z.device), z, "b t h d, h d e, b t h e -> b h t")
        return HeadOutput(
            total_over(squares.clamp(min=0).sqrt(), past_first_token),
            reduce(z.double() * past_first_token[..., None, None], "b t h d -> h d", "sum"),
        )

    def attend(
        self, batch: Batch, inputs: AttentionInputs
    ) -> tuple[Float[Tensor, "batch head token d_head"], Float64[Tensor, "measure batch head"]]:
        """The heads' output, and sums of where they look, in the order of `MEASURES` past the first."""
        device = inputs.query.device
        stats = attention_stats(
            inputs.query,
            inputs.key,
            inputs.value,
            segments=batch.attention_mask.to(device).bool(),
            window=inputs.window,
            softcap=inputs.softcap,
            scale=inputs.scale,
        )
        past_first_token = past_first(batch.counted.to(device))
        even = torch.arange(1, past_first_token.shape[1] + 1).double().log().clamp(min=math.log(2))
        limit = even if inputs.window is None else even.clamp(max=math.log(max(2, inputs.window)))
        entropy = stats.entropy_nats
        masses = (entropy, entropy / limit.to(device), stats.sink_mass, stats.previous_mass)
        return stats.output, torch.stack([total_over(value, past_first_token) for value in masses])

    def add(self, batch: Batch, values: dict[Any, Any]) -> None:
        """Add a batch of one language."""
        layers = range(self.layout.n_layers)
        heads: list[HeadOutput] = [values[Site(layer, "attn_heads")] for layer in layers]
        sums = [*(part for layer in heads for part in layer), *(values[layer] for layer in layers)]
        sums = on_host(sums)
        written, outputs, attention = sums[: 2 * len(heads) : 2], sums[1 : 2 * len(heads) : 2], sums[2 * len(heads) :]
        measured = torch.cat([torch.stack(written)[None], torch.stack(attention, dim=1)])
        tokens = past_first(batch.counted).sum(dim=1)
        add_rows(self.sums, batch, rearrange(measured, "m l b h -> b (m l h)"), tokens=tokens)
        self.output[batch.documents[0].language] += torch.stack(outputs)


def past_first(counted: Bool[Tensor, "batch token"]) -> Bool[Tensor, "batch token"]:
    """The counted tokens but the first of each row, which can only look at itself."""
    rows = counted.clone()
    rows[:, 0] = False
    return rows


def total_over(
    value: Float[Tensor, "batch head token"], chosen: Bool[Tensor, "batch token"]
) -> Float64[Tensor, "batch head"]:
    """Sum over some tokens of each document."""
    return (value.double() * chosen[:, None]).sum(dim=2)
