"""Next-token loss whose head is run in chunks, forward and backward at once: all logits are never held."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from babelscope.axes import Float, Int64, Tensor
from babelscope.models import Layout
from babelscope.subnetworks.packing import Rows

LOGIT_ROWS = 256
"""Rows of logits held at a time; 46 ms a step of 508 × 512 × 4096 on one core, 53 with all rows at once."""


class _HeadLoss(torch.autograd.Function):
    """Summed negative log-likelihood; gradients are worked out chunk by chunk in the forward pass."""

    @staticmethod
    def forward(
        ctx: Any, layout: Layout, hidden: Tensor, targets: Tensor, scale: float, *weights: nn.Parameter
    ) -> Tensor:
        trained = [weight for weight in weights if weight.requires_grad]
        need = hidden.requires_grad or bool(trained)
        total = torch.zeros((), dtype=torch.float64, device=hidden.device)
        towards, grads = [], [torch.zeros_like(weight, dtype=torch.float32) for weight in trained]
        for part, part_targets in zip(hidden.split(LOGIT_ROWS), targets.split(LOGIT_ROWS), strict=True):
            with torch.enable_grad():
                leaf = part.detach().requires_grad_(need)
                nats = F.cross_entropy(layout.logits(leaf).float(), part_targets, reduction="sum")
                scaled = nats * scale
            total += nats.detach()
            if need:
                first, *weight_gradients = torch.autograd.grad(scaled, [leaf, *trained])
                towards.append(first)
                for grad, more in zip(grads, weight_gradients, strict=True):
                    grad += more
        ctx.places = [weight.requires_grad for weight in weights]
        ctx.save_for_backward(
            *([torch.cat(towards)] if need else []), *(g.to(w.dtype) for g, w in zip(grads, trained, strict=True))
        )
        return (total * scale).float()

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        towards, *grads = ctx.saved_tensors
        gradients = iter(grads)
        weight_gradients = [next(gradients) * upstream if trained else None for trained in ctx.places]
        return None, towards * upstream, None, None, *weight_gradients


def head_loss(
    layout: Layout, hidden: Float[Tensor, "place hidden"], targets: Int64[Tensor, " place"], scale: float
) -> Float[Tensor, ""]:
    """scale · Σ −ln p(target), by the model's own head; differentiable by `hidden` and by the head's weights."""
    head: nn.Module = layout.head  # pyright: ignore[reportAssignmentType]
    weights: Sequence[nn.Parameter] = list(head.parameters())
    return _HeadLoss.apply(layout, hidden, targets, scale, *weights)  # pyright: ignore[reportReturnType]


def rows_loss(layout: Layout, rows: Rows, scale: float, *, embeds: Tensor | None = None) -> Float[Tensor, ""]:
    """scale times the summed loss of packed rows; pieces in a row do not see each other.

    embeds: given in place of the ids, for measurements that need a gradient at the bottom.
    """
    ids, positions = rows.input_ids, rows.position_ids
    straight = bool((positions == torch.arange(positions.shape[1], device=positions.device)).all())
    # Positions keep the pieces of a row apart only where no mask comes. Beside packed rows, padded ones need none:
    # their pads stand on the right, where nothing that is scored sees them.
    padded = straight and not bool(rows.real.all())
    hidden = layout.run(
        ids if embeds is None else None,
        embeds=embeds,
        mask=rows.real.to(torch.int64) if padded else None,
        positions=None if straight else positions,
    )
    line, column = rows.scored.nonzero(as_tuple=True)
    line, column = line.to(hidden.device), column.to(hidden.device)
    targets = ids.to(hidden.device)[line, column]
    return head_loss(layout, hidden[line, column - 1], targets, scale)
