"""The residual stream at every depth: before the first layer, and after each."""

from contextlib import ExitStack

from babelscope.axes import Float, Tensor
from babelscope.corpus import Batch
from babelscope.models import Layout
from babelscope.models.measuring import run_pass
from babelscope.sites import Site


def depth_sites(layout: Layout) -> tuple[Site, ...]:
    """The stream before the first layer, and after every layer."""
    return (Site(0, "resid_in"), *(Site(layer, "resid_out") for layer in range(layout.n_layers)))


def read_streams(layout: Layout, batch: Batch) -> list[Float[Tensor, "batch token hidden"]]:
    """The residual stream at every depth."""
    seen: list[Tensor] = []

    def see(value: Tensor, sign: Tensor, routes: Tensor | None) -> None:
        seen.append(value)

    with ExitStack() as stack:
        for site in depth_sites(layout):
            stack.enter_context(layout.watch(site, see))
        run_pass(layout, batch.input_ids, batch.attention_mask)
    return seen
