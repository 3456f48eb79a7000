"""How far a language's sentences move inside the model when it is adapted."""

from contextlib import ExitStack

import torch
import torch.nn.functional as F
from einops import einsum

from babelscope.axes import Float64, Tensor
from babelscope.evaluation import HeldOut
from babelscope.models import Layout
from babelscope.models.hooks import See
from babelscope.models.measuring import run_pass
from babelscope.sites import Site


@torch.no_grad()
def sentence_means(layout: Layout, held_out: HeldOut) -> Float64[Tensor, "layer document hidden"]:
    """Mean of resid_out over each document's counted tokens, in the order of the batches."""
    found: list[list[Tensor]] = [[] for _ in range(layout.n_layers)]
    for batch in held_out.batches:
        weight = batch.counted.double()
        weight = weight / weight.sum(dim=1, keepdim=True)
        for layer, value in enumerate(watched(layout, batch.input_ids, batch.attention_mask)):
            found[layer].append(einsum(weight.to(value.device), value.double(), "b t, b t d -> b d").cpu())
    return torch.stack([torch.cat(rows) for rows in found])


def watched(layout: Layout, ids: Tensor, mask: Tensor) -> list[Tensor]:
    """resid_out of every layer for one batch."""
    seen: dict[int, Tensor] = {}

    def keep(layer: int) -> See:
        def see(value: Tensor, sign: Tensor, routes: Tensor | None) -> None:
            seen[layer] = value

        return see

    with ExitStack() as stack:
        for layer in range(layout.n_layers):
            stack.enter_context(layout.watch(Site(layer, "resid_out"), keep(layer)))
        run_pass(layout, ids, mask)
    return [seen[layer] for layer in range(layout.n_layers)]


def mean_cosine(
    before: Float64[Tensor, "layer document hidden"], after: Float64[Tensor, "layer document hidden"]
) -> Float64[Tensor, " layer"]:
    """Mean over documents of the cosine between a sentence's mean before and after."""
    return F.cosine_similarity(before, after, dim=-1).mean(dim=1)
