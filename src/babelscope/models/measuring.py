"""One forward pass as every measurement runs it: dropout off, positions of each document by itself, no gradients."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from babelscope.axes import Float, Int, Tensor
from babelscope.models.layout import Layout
from babelscope.models.modes import eval_mode
from babelscope.models.positions import pinned_positions
from babelscope.sites import Site
from babelscope.upstream.forward import run_model


@contextmanager
def measured(layout: Layout) -> Iterator[None]:
    """While open the model runs as it is measured: in eval mode, and each document as if it were alone."""
    with eval_mode(layout.model), pinned_positions(layout.model, layout.body):
        yield


@torch.no_grad()
def run_pass(
    layout: Layout,
    input_ids: Int[Tensor, "batch token"],
    attention_mask: Int[Tensor, "batch token"] | None = None,
    *,
    head: bool = False,
) -> Float[Tensor, "batch token unit"]:
    """One pass of whole documents, measured: the body's last hidden states, or with `head` the model's logits.

    Open hooks see it. Pads may stand on either side; the mask says where.
    Raises PrerequisiteError for tokens that the model has no row for, or more of them than it has positions.
    """
    layout.check_tokens(input_ids)
    with measured(layout):
        if not head:
            return layout.run(input_ids, mask=attention_mask)
        device = layout.device_of(Site(None, "embed"))
        mask = None if attention_mask is None else attention_mask.to(device)
        return run_model(layout.model, input_ids.to(device), mask=mask)
