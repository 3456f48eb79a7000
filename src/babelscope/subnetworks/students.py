"""A language's subnetwork as a student of the training loop."""

from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import torch
from babelscope_kernels.rows_adamw.dispatch import rows_adamw_

from babelscope.axes import Float32, Int64, Tensor
from babelscope.subnetworks.bank import Bank
from babelscope.subnetworks.forms import Form, Recompute, choose_form, fused_form, split_form


@dataclass(eq=False)
class Subnetwork:
    """The rows of a bank under AdamW, whose decay goes towards the base weights, never towards zero.

    Source of AdamW: Loshchilov and Hutter 2019, arXiv:1711.05101.
    """

    bank: Bank
    form: Form = "auto"
    recompute: Recompute = "nothing"
    betas: tuple[float, float] = (0.9, 0.95)
    epsilon: float = 1e-8
    decay: float = 0.0
    """Share of the distance to the base that is taken back at each step, times the learning rate."""
    first: Float32[Tensor, "row hidden"] = field(init=False)
    second: Float32[Tensor, "row hidden"] = field(init=False)
    steps: Int64[Tensor, ""] = field(init=False)

    def __post_init__(self) -> None:
        self.first, self.second = torch.zeros_like(self.bank.master), torch.zeros_like(self.bank.master)
        self.steps = torch.zeros((), dtype=torch.int64)
        self.chosen_form = choose_form(self.bank.layout, self.form)
        self.targets = self.bank.targets() if self.fused else self.bank.nowhere()

    @property
    def trained(self) -> int:
        """Trained values."""
        return self.bank.trained

    def installed(self) -> AbstractContextManager[None]:
        """While open the model runs with the masters; after it the model is bit for bit what it was."""
        return fused_form(self.bank, recompute=self.recompute) if self.fused else split_form(self.bank)

    @property
    def fused(self) -> bool:
        """Whether the model's own rows hold the masters while it trains."""
        return self.chosen_form == "fused"

    def zero_grad(self) -> None:
        """Forget the gradients."""
        self.bank.grad.zero_()

    def grad_bytes(self) -> int:
        """Bytes of the gradients that a step makes."""
        return self.bank.grad.nbytes

    def grad_norm(self) -> Tensor:
        """Euclidean length of the gradient."""
        return self.bank.grad.norm()

    def step(self, learning_rate: float, grad_scale: float) -> None:
        """Move the masters once, and the model's rows with them in the fused form."""
        self.steps += 1
        bank = self.bank
        if grad_scale != 1.0:
            bank.grad.mul_(grad_scale)
        rows_adamw_(
            bank.master,
            bank.grad,
            self.first,
            self.second,
            base=bank.base,
            targets=self.targets,
            lr=learning_rate,
            betas=self.betas,
            eps=self.epsilon,
            decay=self.decay,
            step=int(self.steps),
        )

    def state(self) -> dict[str, Tensor]:
        """All that a resumed run needs, as live tensors."""
        return {"master": self.bank.master, "first": self.first, "second": self.second, "steps": self.steps}

    def values(self) -> dict[str, Tensor]:
        """The masters."""
        return {"master": self.bank.master}

    def refresh(self) -> None:
        """Write the masters into the model, where it holds them."""
        if self.fused:
            self.bank.write(self.bank.master)
