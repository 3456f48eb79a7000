"""Information-flow routes: which heads carry what from which token to the last one, edge by edge, from one pass."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

import torch
from einops import einsum, rearrange
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from babelscope.artifacts.shown import shown_by
from babelscope.axes import Float, Float64, Tensor
from babelscope.errors import SelectionError, SiteError
from babelscope.models import Layout
from babelscope.models.attention import AttentionInputs, attention_by
from babelscope.models.family_check import TOLERANCE, rms
from babelscope.models.family_sums import through
from babelscope.models.measuring import run_pass
from babelscope.probes.circuits.unit_patching import UnitPlace
from babelscope.probes.units.attention_removal import attend_plainly, attention_pattern, value_of_heads
from babelscope.sites import At, Site

THRESHOLD = 0.01
"""Least importance of an edge on a route."""
PROMPTS_A_PASS = 8
READ: tuple[At, ...] = ("resid_in", "attn_out", "mlp_out")
RoutePart = Literal["stream", "head", "bias", "mlp"]


class RouteEdge(NamedTuple):
    """One term of one sum in the residual stream."""

    layer: int
    into: At
    """The sum: resid_mid, what the MLP reads; resid_out, what the block gives."""
    part: RoutePart
    """The stream as it was before, a head, the bias of the heads' projection, the MLP."""
    head: int | None
    source: int
    """Position that the term comes from."""
    destination: int
    """Position of the sum."""
    importance: float
    """max(0, ‖y‖₁ - ‖y - z‖₁) of the term z in the sum y, over the total of all terms of y."""


@dataclass(frozen=True)
class Route:
    """What is left of a pass when it is followed back from its last token over important edges."""

    __repr__ = shown_by()

    edges: tuple[RouteEdge, ...]
    """From the last layer to the first."""
    tokens: int

    def shares(self, heads: Sequence[UnitPlace]) -> Float64[Tensor, " head"]:
        """Of the importance of all heads' edges on the route, what each head has; 0 where no head is on it."""
        totals = dict.fromkeys(heads, 0.0)
        for edge in self.edges:
            if edge.head is not None:
                totals[edge.layer, edge.head] += edge.importance
        by_head = torch.tensor(list(totals.values()), dtype=torch.float64)
        return by_head / by_head.sum() if float(by_head.sum()) > 0 else by_head


@dataclass(frozen=True, eq=False)
class BlockTerms:
    """The terms of the sums of one block on one prompt, in float64."""

    layer: int
    stream: Float64[Tensor, "token hidden"]
    """What the attention's output is added to."""
    pattern: Float64[Tensor, "head token other"]
    written: Float64[Tensor, "head other hidden"]
    """What a head writes of each token: its value through the output projection."""
    bias: Float64[Tensor, " hidden"]
    factor: Float64[Tensor, "token hidden"]
    """What the attention's output is multiplied with before it is added: a norm at its scale in this pass, or 1."""
    middle: Float64[Tensor, "token hidden"]
    """What the MLP's output is added to; of blocks side by side, unused."""
    mlp: Float64[Tensor, "token hidden"]
    parallel: bool
    """Whether attention and MLP are added in one sum."""

    def steps(
        self, place: int
    ) -> Iterator[tuple[At, list[tuple[RoutePart, int | None, int]], Float64[Tensor, "term h"]]]:
        """The sums at a position, the last first: what each term is (part, head, source), and the terms."""
        heads = einsum(self.pattern[:, place, : place + 1], self.written[:, : place + 1], "h s, h s d -> h s d")
        attended = self.factor[place] * torch.cat([rearrange(heads, "h s d -> (h s) d"), self.bias[None]])
        names: list[tuple[RoutePart, int | None, int]] = [("stream", None, place)]
        names.extend(("head", head, source) for head in range(len(heads)) for source in range(place + 1))
        names.append(("bias", None, place))
        terms, mlp = torch.cat([self.stream[place, None], attended]), self.mlp[place, None]
        if self.parallel:
            yield "resid_out", [*names, ("mlp", None, place)], torch.cat([terms, mlp])
            return
        yield "resid_out", [("stream", None, place), ("mlp", None, place)], torch.cat([self.middle[place, None], mlp])
        yield "resid_mid", names, terms


def importance_of(terms: Float[Tensor, "term hidden"]) -> Float[Tensor, " term"]:
    """How near each term brings their sum y: max(0, ‖y‖₁ - ‖y - z‖₁), over the total; all 0 where none does."""
    total = terms.sum(dim=0)
    near = (total.abs().sum() - (total - terms).abs().sum(dim=1)).clamp(min=0)
    return near / near.sum().clamp(min=torch.finfo(near.dtype).tiny)


def trace_routes(layout: Layout, prompts: Sequence[Sequence[int]], threshold: float = THRESHOLD) -> list[Route]:
    """Of each prompt the edges of this importance or more that are reached from its last token's last stream.

    A sum y in the stream is decomposed into its terms: the stream before it, the MLP's output, and of the attention one
    term a head and source token, weight × value × output projection, and the projection's bias. A norm that a family
    puts after attention or MLP keeps the scale that it has in this pass, so that its terms add up to what it gives; one
    that it puts after the sum is after y. Side by side, attention and MLP are terms of one sum. From a sum whose edge
    is kept, the way goes on at the edge's source; the MLP's source is its own position. Edges of the bias end there.
    A prompt takes two forward passes; nothing is patched.
    Raises SelectionError for a threshold outside 0 to .5 (above it no edge may be left), SiteError for a family whose
    attention is not the plain one, or whose terms do not add up to its output.
    Source: Ferrando and Voita 2024, arXiv:2403.00824.
    """
    if not 0 <= threshold <= 0.5:
        raise SelectionError(f"threshold {threshold} came; expected an importance from 0 to 0.5; correct it")
    batches = [prompts[start : start + PROMPTS_A_PASS] for start in range(0, len(prompts), PROMPTS_A_PASS)]
    return [route_through(blocks, threshold) for batch in batches for blocks in block_terms(layout, batch)]


def route_through(blocks: Sequence[BlockTerms], threshold: float) -> Route:
    """The way back through the blocks of one prompt."""
    last = len(blocks[0].stream) - 1
    edges, reached = list[RouteEdge](), {last}
    for block in reversed(blocks):
        earlier = set[int]()
        for place in sorted(reached, reverse=True):
            for into, names, terms in block.steps(place):
                values = importance_of(terms).tolist()
                on_route = [
                    RouteEdge(block.layer, into, part, head, source, place, value)
                    for (part, head, source), value in zip(names, values, strict=True)
                    if value >= threshold and value > 0
                ]
                edges += on_route
                if into == "resid_mid" or block.parallel:
                    earlier |= {edge.source for edge in on_route if edge.part != "bias"}
                elif not on_route:
                    break
        reached = earlier
    return Route(tuple(edges), last + 1)


@torch.no_grad()
def block_terms(layout: Layout, prompts: Sequence[Sequence[int]]) -> Iterator[list[BlockTerms]]:
    """Every block's terms on each prompt of a batch.

    Raises SiteError where a block's terms do not add up to its attention's output, and for layers without attention.
    """
    if layout.without_attention:
        raise SiteError(
            f"layers {list(layout.without_attention)} of {layout.model.config.model_type} have no attention; expected "
            "attention in every layer, through which all that passes between tokens can be seen; choose another model"
        )
    ids, mask = (
        pad_sequence([torch.tensor(part) for part in parts], batch_first=True)
        for parts in ([list(prompt) for prompt in prompts], [[1] * len(prompt) for prompt in prompts])
    )
    values, attentions = dict[Site, Tensor](), dict[int, AttentionInputs]()

    def look(site: Site, value: Tensor, *_: Tensor | None) -> None:
        values[site] = value.clone()

    def attend(inputs: AttentionInputs) -> Tensor:
        attentions[inputs.layer] = inputs
        return attend_plainly(inputs)

    with ExitStack() as stack:
        for site in (Site(layer, at) for layer in range(layout.n_layers) for at in READ):
            stack.enter_context(layout.watch(site, partial(look, site)))
        run_pass(layout, ids, mask)
    with attention_by(layout.model, attend):
        run_pass(layout, ids, mask)
    for row, prompt in enumerate(prompts):
        yield [
            terms_of(
                layout,
                one_prompt(inputs, row, len(prompt)),
                *(values[Site(layer, at)][row, : len(prompt)] for at in READ),
            )
            for layer, inputs in sorted(attentions.items())
        ]


def one_prompt(inputs: AttentionInputs, row: int, length: int) -> AttentionInputs:
    """What the attention was given of one row without its pads."""
    query, key, value = (part[row : row + 1, :, :length] for part in (inputs.query, inputs.key, inputs.value))
    return inputs._replace(query=query, key=key, value=value)


def terms_of(layout: Layout, inputs: AttentionInputs, before: Tensor, attn_out: Tensor, mlp_out: Tensor) -> BlockTerms:
    """One block's terms, from what its attention was given and what it gave."""
    names, block = layout.family, layout.layer(inputs.layer)
    projection = block.get_submodule(names.heads_out)
    value = value_of_heads(inputs)[0]
    # A row for every head and token, in which all other heads are 0.
    single = torch.eye(len(value)).to(value)[:, None, :, None] * value[:, :, None]
    bias = projection(torch.zeros_like(single[0, :1]).flatten(1))[0]
    written = projection(single.flatten(2)) - bias
    factor = layout.factor() * (
        norm_scale(block.get_submodule(names.attn_norm), attn_out) if names.attn_norm else torch.ones_like(attn_out)
    )
    attended = layout.factor() * through(block, names.attn_norm, attn_out)
    stream = through(block, names.attn_base, before)
    terms = BlockTerms(
        layer=inputs.layer,
        stream=wide(stream),
        pattern=wide(attention_pattern(inputs)[0]),
        written=wide(written),
        bias=wide(bias),
        factor=wide(factor),
        middle=wide(through(block, names.mlp_base, through(block, names.mid_after, stream + attended))),
        mlp=wide(layout.factor() * through(block, names.mlp_norm, mlp_out)),
        parallel=names.parallel,
    )
    check_sum(layout, terms, attended)
    return terms


def check_sum(layout: Layout, terms: BlockTerms, attended: Float[Tensor, "token hidden"]) -> None:
    """Raise SiteError unless heads and bias add up to what the attention adds to the stream in a plain pass."""
    heads = einsum(terms.pattern, terms.written, "h t s, h s d -> t d")
    apart = rms(terms.factor * (heads + terms.bias) - wide(attended))
    # Some norms compute in float32 also where the model is wider.
    allowed = max(TOLERANCE[attended.dtype], TOLERANCE[torch.float32]) * rms(wide(attended))
    if not apart <= allowed:
        raise SiteError(
            f"the heads of layer {terms.layer} of {layout.model.config.model_type} add up to something that is "
            f"{apart:.2g} off its attention's output (rounding explains {allowed:.1g}); expected weight × value × "
            "output projection; patch its heads instead"
        )


def norm_scale(norm: nn.Module, vectors: Float[Tensor, "token hidden"]) -> Float[Tensor, "token hidden"]:
    """What a root-mean-square norm multiplied each coordinate with in this pass: scale of the token times weight."""
    weight = norm(torch.ones_like(vectors))
    weighted = vectors * weight
    squares = weighted.square().sum(dim=-1, keepdim=True).clamp(min=torch.finfo(vectors.dtype).tiny)
    return weight * ((norm(vectors) * weighted).sum(dim=-1, keepdim=True) / squares)


def wide(value: Tensor) -> Float64[Tensor, "..."]:
    """A value in float64 on the CPU."""
    return value.detach().cpu().double()
