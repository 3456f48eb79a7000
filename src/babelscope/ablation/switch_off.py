"""Switch neurons off for a while: to zero, or to a constant."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import torch

from babelscope.axes import Bool, Float, Tensor
from babelscope.errors import ArtifactError
from babelscope.models import Layout
from babelscope.sites import At, Site


@contextmanager
def switched_off(
    layout: Layout,
    mask: Bool[Tensor, "layer neuron"],
    *,
    at: At = "mlp_gate",
    value: Float[Tensor, "layer neuron"] | None = None,
) -> Iterator[None]:
    """While open, the masked neurons give `value`, or zero, at every token.

    Zero at mlp_gate or mlp_inner is the same as zeroing the neurons' columns of the down projection.
    An MoE's neurons are expert-major and are switched off only where their expert was chosen.
    Raises ArtifactError if the mask is for another shape of model.
    """
    expected = (layout.n_layers, layout.width(at))
    if tuple(mask.shape) != expected:
        raise ArtifactError(
            f"mask of {list(mask.shape)} came; expected {list(expected)} for this model; the set is for another one"
        )
    with ExitStack() as stack:
        for layer in range(layout.n_layers):
            if not bool(mask[layer].any()):
                continue
            site = Site(layer, at)
            fill = torch.zeros(expected[1]) if value is None else value[layer]
            stack.enter_context(layout.edit_routed(site, filler(layout, site, mask[layer], fill)))
        yield


def filler(layout: Layout, site: Site, mask: Tensor, fill: Tensor) -> Callable[[Tensor, Tensor | None], Tensor]:
    """The change at one layer."""
    device = layout.device_of(site)
    off, constant = mask.to(device), fill.to(device)

    def change(value: Tensor, routes: Tensor | None) -> Tensor:
        if routes is None:
            return torch.where(off, constant.to(value.dtype), value)
        experts_off, experts_fill = (flat.view(layout.n_experts, -1)[routes] for flat in (off, constant))
        return torch.where(experts_off, experts_fill.to(value.dtype), value)

    return change
