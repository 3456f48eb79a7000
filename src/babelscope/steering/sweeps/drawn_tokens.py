"""Drawing from a large vocabulary: one random number per row, in place of one for every entry."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from babelscope.axes import Float, Int64, Tensor
from babelscope.errors import MeasurementError
from babelscope.models.plain import CausalModel
from babelscope.upstream.generation import chosen_by

LARGE = 32_768
"""Entries from which tokens are drawn here: `torch.multinomial` draws a number for every entry of every row
(docs/measured/drawing.jsonl has what that costs). The answers of smaller vocabularies stay, token for token, as earlier
releases drew them."""
BLOCK = 512
"""Entries whose weights are summed first, so that few numbers are left to search."""


@dataclass(frozen=True)
class TokenDraw:
    """Draws the next token of each row by its probability, and leaves it the largest score.

    `generate` calls it with the scores of every step and takes the largest. Uniform numbers come from the CPU's
    generator, also for a model on a GPU: the same seed draws the same there, but for rounding.
    """

    temperature: float
    never: tuple[int, ...] = ()
    """Ids that are not drawn."""

    def __call__(self, input_ids: Int64[Tensor, "row token"], scores: Float[Tensor, "row entry"]) -> Tensor:
        """The scores, in place, with that of the token drawn above all others."""
        if self.never:
            scores[:, list(self.never)] = -torch.inf
        weights = scores.sub_(scores.amax(dim=1, keepdim=True)).mul_(1 / self.temperature).exp_()
        uniform = torch.rand(len(scores), dtype=torch.float64).to(scores.device)
        weights[torch.arange(len(scores), device=scores.device), token_at(weights, uniform)] = 2.0  # none is above 1
        return weights


def is_large(entries: int) -> bool:
    """Whether a vocabulary has so many entries that drawing from it, and reading it for few rows, costs time."""
    return entries >= LARGE


def token_at(weights: Float[Tensor, "row entry"], uniform: Float[Tensor, " row"]) -> Int64[Tensor, " row"]:
    """The entry of each row at which the weights up to it first exceed a share `uniform`, 0 to 1, of their sum.

    Sums of blocks, then the entries of one block, are added in float64. An entry of weight 0 is never taken.
    Raises MeasurementError for weights that are no numbers.
    """
    rows, entries = weights.shape
    in_blocks = entries // BLOCK * BLOCK
    sums = weights[:, :in_blocks].unflatten(1, (-1, BLOCK)).sum(dim=2) if in_blocks else weights.new_zeros(rows, 0)
    sums = torch.cat([sums, weights[:, in_blocks:].sum(dim=1, keepdim=True)], dim=1).double()
    total = sums.sum(dim=1)
    if not bool(total.isfinite().all()):
        raise MeasurementError("the scores of a next token are NaN or infinite; expected numbers; check the weights")
    block, share_left = first_above(sums, uniform * total)
    places = block[:, None] * BLOCK + torch.arange(BLOCK, device=weights.device)
    in_block = weights.gather(1, places.clamp(max=entries - 1)).double().masked_fill_(places >= entries, 0.0)
    return block * BLOCK + first_above(in_block, share_left)[0]


def first_above(
    weights: Float[Tensor, "row entry"], share: Float[Tensor, " row"]
) -> tuple[Int64[Tensor, " row"], Float[Tensor, " row"]]:
    """The first entry up to which the weights exceed a share, never one of weight 0; and what of the share is left."""
    reached = weights.cumsum(dim=1)
    # A share may reach the sum by rounding: the last entry that adds to it is taken then.
    last = torch.searchsorted(reached, reached[:, -1:].contiguous())
    entry = torch.searchsorted(reached, share[:, None], right=True).minimum(last)
    before = reached.gather(1, entry) - weights.gather(1, entry)
    return entry[:, 0], share - before[:, 0]


def drawn_keywords(
    model: CausalModel, keywords: Mapping[str, Any], entries: int, never: tuple[int, ...]
) -> dict[str, Any]:
    """Keywords of `generate` that draw by `TokenDraw`, where they ask for a draw from a large vocabulary.

    entries: of the vocabulary. never: ids that the answers' least length forbids, where that is their length too.
    """
    if not keywords.get("do_sample") or not is_large(entries):
        return dict(keywords)
    passed_on = {name: value for name, value in keywords.items() if name not in ("temperature", "top_k", "top_p")}
    draw = TokenDraw(keywords["temperature"])
    if passed_on.get("min_new_tokens") == passed_on["max_new_tokens"]:
        del passed_on["min_new_tokens"]
        draw = replace(draw, never=never)
    return passed_on | {"do_sample": False} | chosen_by(model, draw)
