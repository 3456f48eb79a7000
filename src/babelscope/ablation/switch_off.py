"""Switch neurons off for a while: to zero, or to a constant."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from einops import rearrange

from babelscope.axes import Bool, Float, Tensor
from babelscope.corpus import Batch
from babelscope.errors import ArtifactError
from babelscope.models import Layout
from babelscope.recording.walk import Forward, OpenPasses, hooked_passes
from babelscope.recording.watchers import Watcher
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
    with _edited(layout, mask[None], at, None if value is None else value[None]):
        yield


@contextmanager
def switched_off_by_text(
    layout: Layout,
    masks: Bool[Tensor, "text layer neuron"],
    *,
    at: At = "mlp_gate",
    values: Float[Tensor, "text layer neuron"] | None = None,
) -> Iterator[OpenPasses]:
    """`switched_off` with a mask, and values, of each text's own, for documents of many texts in one batch.

    Gives the passes that `walk` is to make: they know which text each row is of, by `TokenDocument.language`.
    Raises ArtifactError if the masks are for another shape of model.
    """
    rows: list[list[int]] = []

    @contextmanager
    def passes(layout: Layout, watchers: Sequence[Watcher]) -> Iterator[Forward]:
        with hooked_passes(layout, watchers) as forward:

            def of_texts(batch: Batch) -> list[Any]:
                rows[:] = [[document.language for document in batch.documents]]
                try:
                    return forward(batch)
                finally:
                    rows.clear()

            yield of_texts

    with _edited(layout, masks, at, values, lambda: rows[0]):
        yield passes


@contextmanager
def _edited(
    layout: Layout,
    masks: Bool[Tensor, "text layer neuron"],
    at: At,
    values: Float[Tensor, "text layer neuron"] | None,
    texts: Callable[[], list[int]] | None = None,
) -> Iterator[None]:
    """Hooks at the layers that have a masked neuron; texts: that of each row under way, None where there is one."""
    expected = (layout.n_layers, layout.width(at))
    if tuple(masks.shape[1:]) != expected:
        raise ArtifactError(
            f"mask of {list(masks.shape[1:])} came; expected {list(expected)} for this model; the set is for another "
            "one"
        )
    with ExitStack() as stack:
        for layer in range(layout.n_layers):
            if not bool(masks[:, layer].any()):
                continue
            site = Site(layer, at)
            fill = torch.zeros(1, expected[1]) if values is None else values[:, layer]
            stack.enter_context(layout.edit_routed(site, filler(layout, site, masks[:, layer], fill, texts)))
        yield


def filler(
    layout: Layout,
    site: Site,
    masks: Bool[Tensor, "text neuron"],
    fill: Float[Tensor, "_ neuron"],
    texts: Callable[[], list[int]] | None = None,
) -> Callable[[Tensor, Tensor | None], Tensor]:
    """The change at one layer; one mask, or one row of values, serves all texts; texts: as above."""
    device = layout.device_of(site)
    off, constant = masks.to(device), fill.to(device)

    def of_rows(flat: Tensor, routes: Tensor | None) -> Tensor:
        by_expert = flat if routes is None else flat.unflatten(1, (layout.n_experts, -1))
        if texts is None or len(flat) == 1:
            return by_expert[0] if routes is None else by_expert[0, routes]
        text = torch.tensor(texts(), device=device)
        if routes is None:
            return by_expert[rearrange(text, "row -> row 1")]
        return by_expert[rearrange(text, "row -> row 1 1"), routes]

    def change(value: Tensor, routes: Tensor | None) -> Tensor:
        return torch.where(of_rows(off, routes), of_rows(constant, routes).to(value.dtype), value)

    return change
