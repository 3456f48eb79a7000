"""Several students in one: their values move in the same steps, on one gradient."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch

from babelscope.axes import Tensor
from babelscope.subnetworks.student_protocol import Student


@dataclass(eq=False)
class JointStudent:
    """Students of different values of one model, such as neurons and rows of tokens.

    The gradient is clipped by the length of all parts together.
    """

    parts: Sequence[Student]
    rates: Sequence[float]
    """Of each part, times the learning rate of a step: values of another size need another one."""

    @property
    def layers(self) -> tuple[int, ...]:
        """Layers whose MLPs hold trained neurons."""
        return tuple(sorted({layer for part in self.parts for layer in part.layers}))

    @property
    def trained(self) -> int:
        """Trained values."""
        return sum(part.trained for part in self.parts)

    @contextmanager
    def installed(self) -> Iterator[None]:
        """While open the model runs with the values of all parts; after it the model is bit for bit what it was."""
        with ExitStack() as stack:
            for part in self.parts:
                stack.enter_context(part.installed())
            yield

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for part in self.parts:
            part.zero_grad()

    def gradients(self) -> list[Tensor]:
        """The gradients of all parts."""
        return [grad for part in self.parts for grad in part.gradients()]

    def grad_bytes(self) -> int:
        """Bytes of the gradients that a step makes."""
        return sum(part.grad_bytes() for part in self.parts)

    def grad_norm(self) -> Tensor:
        """Euclidean length of the whole gradient."""
        return torch.stack([part.grad_norm() for part in self.parts]).norm()

    def step(self, learning_rate: float, grad_scale: float) -> None:
        """Move the values of all parts once."""
        for part, rate in zip(self.parts, self.rates, strict=True):
            part.step(learning_rate * rate, grad_scale)

    def state(self) -> dict[str, Tensor]:
        """All that a resumed run needs, as live tensors, by number of the part."""
        return {f"{i}/{name}": value for i, part in enumerate(self.parts) for name, value in part.state().items()}

    def values(self) -> dict[str, Tensor]:
        """The trained values, by number of the part."""
        return {f"{i}/{name}": value for i, part in enumerate(self.parts) for name, value in part.values().items()}

    def refresh(self) -> None:
        """Take over values that were written into the live tensors."""
        for part in self.parts:
            part.refresh()
