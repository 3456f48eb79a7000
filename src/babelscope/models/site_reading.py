"""Read one site of a model once, for looking."""

import torch

from babelscope.axes import Int, Tensor
from babelscope.errors import SiteError
from babelscope.models.family_check import layout_of
from babelscope.models.measuring import run_pass
from babelscope.models.plain import CausalModel
from babelscope.sites import Site


@torch.no_grad()
def read_site(
    model: CausalModel, input_ids: Int[Tensor, "batch token"], site: Site, *, attention_mask: Tensor | None = None
) -> Tensor:
    """The tensor at one site for these tokens, for looking, in eval mode; shapes as in `Layout.edit`.

    Raises SiteError if the model has no such site, and for ids that are no rows of tokens.
    """
    if input_ids.ndim != 2 or not input_ids.numel():
        raise SiteError(
            f"ids of shape {list(input_ids.shape)} came; expected rows of one token or more, [batch, token]; write "
            "ids[None] for one text"
        )
    layout, values = layout_of(model), []
    with layout.watch(site, lambda value, sign, routes: values.append(value.clone())):
        run_pass(layout, input_ids, attention_mask, head=True)
    return values[-1]
