"""What a measurement reads while text goes through a model, and how it adds that up."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

from babelscope.axes import Bool, Float, Int, Tensor
from babelscope.corpus import Batch
from babelscope.models.attention import AttentionInputs
from babelscope.sites import Site


class SiteValue(NamedTuple):
    """What one site gave for one batch."""

    value: Float[Tensor, "batch token *unit"]
    sign_source: Float[Tensor, "batch token *unit"]
    """Positive where a unit is active."""
    routes: Int[Tensor, "batch token top_k"] | None
    """The experts that each token of a mixture of experts was given to."""
    counted: Bool[Tensor, "batch token"]
    """On the value's device."""

    def rows(self) -> Float[Tensor, "row unit"]:
        """The values of the counted tokens, with heads side by side.

        In a mixture of experts a column is of a place among the chosen experts, and of no neuron.
        """
        return self.value.flatten(2)[self.counted]


ReadSite = Callable[[Batch, SiteValue], Any]


@runtime_checkable
class Watcher(Protocol):
    """One measurement: what it reads during a pass, and the totals that it adds a finished batch to.

    A batch that does not fit in memory is halved and passed again: only `add` may change anything.
    """

    @property
    def hooks(self) -> Mapping[Site, ReadSite]:
        """What is called at each site during the pass; what it returns is handed on to `add`."""
        ...

    def add(self, batch: Batch, values: Any) -> None:
        """Add a finished batch to the totals; values: what the hooks returned by site, or what `measure` returned."""
        ...


@runtime_checkable
class OutputWatcher(Watcher, Protocol):
    """A measurement with work to do after the pass and before anything is added, such as the head's."""

    def measure(self, batch: Batch, values: dict[Site, Any], hidden: Float[Tensor, "batch token hidden"]) -> Any:
        """What `add` gets; hidden: the body's last hidden states, after the final norm."""
        ...


@runtime_checkable
class AttentionWatcher(Watcher, Protocol):
    """A measurement that computes the attention itself, to see its patterns; one of a walk at most."""

    def attend(self, batch: Batch, inputs: AttentionInputs) -> tuple[Float[Tensor, "batch head token d_head"], Any]:
        """The heads' output, and what is handed on to `add` under the number of the layer."""
        ...


@runtime_checkable
class ResumableWatcher(Watcher, Protocol):
    """A measurement that can go on from a checkpoint."""

    def state(self) -> dict[str, Tensor]:
        """The totals themselves by name, not copies: a checkpoint is copied into them."""
        ...
