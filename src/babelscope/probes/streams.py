"""The residual stream at every depth: before the first layer, and after each."""

from contextlib import ExitStack

from babelscope.axes import Float, Int, Tensor
from babelscope.models import Layout
from babelscope.models.measuring import run_pass
from babelscope.recording.watchers import ReadSite
from babelscope.sites import Site


def depth_sites(layout: Layout) -> tuple[Site, ...]:
    """The stream before the first layer, and after every layer."""
    return (Site(0, "resid_in"), *(Site(layer, "resid_out") for layer in range(layout.n_layers)))


def counted_rows(layout: Layout) -> dict[Site, ReadSite]:
    """Hooks of a walk that hand on the counted tokens' stream at every depth."""
    return dict.fromkeys(depth_sites(layout), lambda batch, at: at.rows())


def read_streams(
    layout: Layout, input_ids: Int[Tensor, "batch token"], attention_mask: Tensor | None = None
) -> list[Float[Tensor, "batch token hidden"]]:
    """The residual stream at every depth of a few tokens, for looking."""
    states: list[Tensor] = []

    def see(value: Tensor, sign: Tensor, routes: Tensor | None) -> None:
        states.append(value)

    with ExitStack() as stack:
        for site in depth_sites(layout):
            stack.enter_context(layout.watch(site, see))
        run_pass(layout, input_ids, attention_mask)
    return states
