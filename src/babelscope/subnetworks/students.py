"""A language's subnetwork as a student of the training loop."""

from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from babelscope.axes import Tensor
from babelscope.subnetworks.bank import Bank
from babelscope.subnetworks.forms import Form, choose_form, fused_form, split_form
from babelscope.subnetworks.frozen_mlp import Recompute
from babelscope.subnetworks.row_optimizer import RowOptimizer


@dataclass(eq=False)
class Subnetwork:
    """The rows of a bank under AdamW, whose decay goes towards the base weights, never towards zero."""

    bank: Bank
    form: Form = "auto"
    recompute: Recompute = "nothing"
    betas: tuple[float, float] = (0.9, 0.95)
    epsilon: float = 1e-8
    below: bool = False
    """Whether something below its layers is trained too, so that gradients pass all layers."""
    decay: float = 0.0
    """Share of the distance to the base that is taken back at each step, times the learning rate."""
    optimizer: RowOptimizer = field(init=False)

    def __post_init__(self) -> None:
        bank = self.bank
        self.optimizer = RowOptimizer(bank.master, bank.base, bank.grad, self.betas, self.epsilon, self.decay)
        self.chosen_form = choose_form(self.bank.layout, self.form)
        self.targets = self.bank.targets() if self.fused else self.bank.nowhere()

    @property
    def layers(self) -> tuple[int, ...]:
        """Layers whose MLPs hold trained neurons."""
        return self.bank.layers

    @property
    def trained(self) -> int:
        """Trained values."""
        return self.bank.trained

    def installed(self) -> AbstractContextManager[None]:
        """While open the model runs with the masters; after it the model is bit for bit what it was."""
        if not self.fused:
            return split_form(self.bank)
        return fused_form(self.bank, lowest=0 if self.below else min(self.layers), recompute=self.recompute)

    @property
    def fused(self) -> bool:
        """Whether the model's own rows hold the masters while it trains."""
        return self.chosen_form == "fused"

    def zero_grad(self) -> None:
        """Forget the gradients."""
        self.bank.grad.zero_()

    def gradients(self) -> list[Tensor]:
        """The packed gradient."""
        return [self.bank.grad]

    def grad_bytes(self) -> int:
        """Bytes of the gradients that a step makes."""
        return self.bank.grad.nbytes

    def grad_norm(self) -> Tensor:
        """Euclidean length of the gradient."""
        return self.bank.grad.norm()

    def step(self, learning_rate: float, grad_scale: float) -> None:
        """Move the masters once, and the model's rows with them in the fused form."""
        self.optimizer.step(self.targets, learning_rate, grad_scale)

    def state(self) -> dict[str, Tensor]:
        """All that a resumed run needs, as live tensors."""
        return self.optimizer.state()

    def values(self) -> dict[str, Tensor]:
        """The masters."""
        return {"master": self.bank.master}

    def refresh(self) -> None:
        """Write the masters into the model, where it holds them."""
        if self.fused:
            self.bank.write(self.bank.master)
