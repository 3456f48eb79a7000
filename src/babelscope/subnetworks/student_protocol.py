"""What the training loop asks of whatever it trains."""

from contextlib import AbstractContextManager
from typing import Any, Protocol, runtime_checkable

from babelscope.axes import Tensor


@runtime_checkable
class Student(Protocol):
    """What is trained, whichever way: its values, their gradients, and how a step moves them."""

    @property
    def trained(self) -> int:
        """Trained values."""
        ...

    @property
    def layers(self) -> tuple[int, ...]:
        """Layers whose MLPs hold trained neurons; empty where parameters themselves are trained."""
        ...

    def installed(self) -> AbstractContextManager[Any]:
        """While open the model runs with the trained values; after it the model is bit for bit what it was."""
        ...

    def zero_grad(self) -> None:
        """Forget the gradients."""
        ...

    def gradients(self) -> list[Tensor]:
        """The gradients as live tensors, zero where a value had none: the same shapes in every process."""
        ...

    def grad_bytes(self) -> int:
        """Bytes of the gradients that a step makes."""
        ...

    def grad_norm(self) -> Tensor:
        """Euclidean length of the gradient."""
        ...

    def step(self, learning_rate: float, grad_scale: float) -> None:
        """Move the values once, along the gradient times `grad_scale`."""
        ...

    def state(self) -> dict[str, Tensor]:
        """All that a resumed run needs, as live tensors."""
        ...

    def values(self) -> dict[str, Tensor]:
        """The trained values alone, as live tensors."""
        ...

    def refresh(self) -> None:
        """Take over values that were written into the live tensors."""
        ...
