"""What the linear maps of a model's blocks read: the mean square of each input over text."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import nn

from babelscope.axes import Float64, Tensor
from babelscope.corpus import Batch, TokenDocument
from babelscope.errors import SiteError
from babelscope.models import Layout
from babelscope.models.measuring import measured, run_pass
from babelscope.models.plain import plain_weight
from babelscope.recording.walk import Forward, walk
from babelscope.recording.watchers import ReadSite, Watcher
from babelscope.sites import Site
from babelscope.upstream.kinds import conv1d


def linear_maps(layout: Layout) -> dict[str, nn.Module]:
    """The linear maps of all blocks, by the name of their weight among the model's parameters.

    Raises SiteError for a mixture of experts, whose maps lie in one weight; PrerequisiteError where an adapter, a
    parametrisation or a quantiser stands in the place of one.
    """
    if layout.n_experts:
        raise SiteError("inputs of linear maps came for a mixture of experts; expected a dense model; choose another")
    names = {id(parameter): name for name, parameter in layout.model.named_parameters()}
    maps: dict[str, nn.Module] = {}
    for index in range(layout.n_layers):
        for place, module in layout.layer(index).named_modules():
            if isinstance(module, nn.Linear | conv1d()):
                weight = plain_weight(module, what=f"layer {index}, {place}")
                maps[names[id(weight)]] = module
    return maps


def mean_squares(
    layout: Layout, documents: Sequence[TokenDocument], *, pad: int = 0, batch_tokens: int | None = None
) -> dict[str, Float64[Tensor, " into"]]:
    """Mean of x² over the tokens that count, for every input x of every linear map of the blocks.

    By the name of the map's weight, see `linear_maps`, whose errors it raises.
    """
    watcher = SquareSums({})
    walk(
        layout,
        [documents],
        [watcher],
        pad=pad,
        batch_tokens=batch_tokens,
        passes=partial(input_passes, linear_maps(layout)),
    )
    return {name: total / watcher.tokens for name, total in watcher.sums.items()}


@dataclass(eq=False)
class SquareSums:
    """Σ x² by linear map, and the tokens that were counted."""

    sums: dict[str, Float64[Tensor, " into"]]
    tokens: int = 0
    hooks: dict[Site, ReadSite] = field(default_factory=dict)

    def add(self, batch: Batch, values: dict[str, Float64[Tensor, " into"]]) -> None:
        """Add a batch."""
        self.tokens += int(batch.counted.sum())
        for name, value in values.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value


@contextmanager
def input_passes(maps: dict[str, nn.Module], layout: Layout, watchers: Sequence[Watcher]) -> Iterator[Forward]:
    """Passes whose one value is the batch's Σ x² by map."""
    counted: list[Tensor] = []
    read: dict[str, Tensor] = {}

    def before(name: str, _: nn.Module, args: tuple[Any, ...]) -> None:
        # The maps of one block may read the batch as rows, without the axis of documents.
        rows = args[0].detach().reshape(-1, args[0].shape[-1])
        which = counted[0].to(rows.device)
        read[name] = rows[which].double().square().sum(dim=0).cpu()

    def forward(batch: Batch) -> list[Any]:
        read.clear()
        counted[:] = [batch.counted.reshape(-1)]
        run_pass(layout, batch.input_ids, batch.attention_mask)
        return [dict(read)]

    with ExitStack() as stack:
        stack.enter_context(measured(layout))
        for name, module in maps.items():
            stack.callback(module.register_forward_pre_hook(partial(before, name)).remove)
        yield forward
