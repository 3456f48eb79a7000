"""AdamW of rows: moments, and one step that moves float32 masters and the model's rows with them."""

from dataclasses import dataclass, field

import torch
from babelscope_kernels.rows_adamw.dispatch import rows_adamw_
from babelscope_kernels.rows_adamw.targets import RowTargets

from babelscope.axes import Float32, Int64, Tensor


@dataclass(eq=False)
class RowOptimizer:
    """Rows under AdamW, whose decay goes towards the base, never towards zero.

    Source of AdamW: Loshchilov and Hutter 2019, arXiv:1711.05101.
    """

    master: Float32[Tensor, "row hidden"]
    base: Float32[Tensor, "row hidden"]
    """The model's own values, to which they decay."""
    grad: Float32[Tensor, "row hidden"]
    """Gradients are added here by the backward pass."""
    betas: tuple[float, float]
    epsilon: float
    decay: float
    """Share of the distance to the base that is taken back at each step, times the learning rate."""
    first: Float32[Tensor, "row hidden"] = field(init=False)
    second: Float32[Tensor, "row hidden"] = field(init=False)
    steps: Int64[Tensor, ""] = field(init=False)

    def __post_init__(self) -> None:
        self.first, self.second = torch.zeros_like(self.master), torch.zeros_like(self.master)
        self.steps = torch.zeros((), dtype=torch.int64)

    def step(self, targets: RowTargets, learning_rate: float, grad_scale: float) -> None:
        """Move the masters once, along the gradient times `grad_scale`, and write them to the targets."""
        self.steps += 1
        if grad_scale != 1.0:
            self.grad.mul_(grad_scale)
        rows_adamw_(
            self.master,
            self.grad,
            self.first,
            self.second,
            base=self.base,
            targets=targets,
            lr=learning_rate,
            betas=self.betas,
            eps=self.epsilon,
            decay=self.decay,
            step=int(self.steps),
        )

    def state(self) -> dict[str, Tensor]:
        """All that a resumed run needs, as live tensors."""
        return {"master": self.master, "first": self.first, "second": self.second, "steps": self.steps}
