"""Read one site of a model once, for looking."""

import torch

from babelscope.axes import Int, Tensor
from babelscope.models.family_check import layout_of
from babelscope.models.measuring import run_pass
from babelscope.models.plain import CausalModel
from babelscope.sites import Site


@torch.no_grad()
def read_site(
    model: CausalModel, input_ids: Int[Tensor, "batch token"], site: Site, *, attention_mask: Tensor | None = None
) -> Tensor:
    """The tensor at one site for these tokens, for looking, in eval mode; shapes as in `Layout.edit`.

    Raises SiteError if the model has no such site.
    """
    layout, values = layout_of(model), []
    with layout.watch(site, lambda value, sign, routes: values.append(value.clone())):
        run_pass(layout, input_ids, attention_mask, head=True)
    return values[-1]
