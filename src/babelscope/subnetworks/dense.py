"""Baselines that train the model's own parameters: all of them, the MLPs, or single values under a mask."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import torch
from torch import nn

from babelscope.axes import Bool, Tensor
from babelscope.errors import PrerequisiteError
from babelscope.models import Layout
from babelscope.sites import Site
from babelscope.subnetworks.fused_adamw import adamw_step


@dataclass(eq=False)
class Dense:
    """Named parameters under stock AdamW, moved in place and put back at the end.

    Where there is a mask, gradients outside it are zeroed after the backward pass, as lottery-ticket tuning does: the
    dense gradient is still worked out. Decay goes towards the base, or masked values would move (Ansell et al. 2022,
    arXiv:2110.07560, whose code lets AdamW decay them).
    """

    layout: Layout
    names: tuple[str, ...]
    masks: Mapping[str, Bool[Tensor, "..."]] | None = None
    """By parameter, True where it may move; None: everywhere."""
    betas: tuple[float, float] = (0.9, 0.95)
    epsilon: float = 1e-8
    decay: float = 0.0
    l1: float = 0.0
    """Times Σ |value − base| / values of the whole model, added to the loss (Ansell et al.'s trainer)."""
    start: Mapping[str, Tensor] | None = None
    """Values to begin with, by parameter; None: those of the model."""
    silenced: Bool[Tensor, "layer neuron"] | None = None
    """MLP neurons that are 0 in every pass while the student is installed; their weights then have no gradient."""
    masters: bool = True
    """Refuse weights below float32, whose small updates would be lost; False for measurements of time alone."""
    base: dict[str, Tensor] = field(init=False)
    moments: dict[str, Tensor] = field(init=False)

    def __post_init__(self) -> None:
        live = self.parameters
        for name, parameter in live.items():
            if self.masters and parameter.dtype not in (torch.float32, torch.float64):
                raise PrerequisiteError(
                    f"{name} is {parameter.dtype}; this baseline moves the model's own values and expected float32; "
                    "open the model with dtype='float32'"
                )
        self.base = {name: parameter.detach().clone() for name, parameter in live.items()}
        self.moments = {
            f"{kind}/{name}": torch.zeros_like(parameter.detach())
            for name, parameter in live.items()
            for kind in ("first", "second")
        }
        self.moments |= {
            f"steps/{name}": torch.zeros((), dtype=torch.float32, device=parameter.device)
            for name, parameter in live.items()
        }

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """The trained parameters."""
        by_name = dict(self.layout.model.named_parameters())
        return {name: by_name[name] for name in self.names}

    @property
    def layers(self) -> tuple[int, ...]:
        """Layers whose MLPs hold trained neurons: parameters are trained."""
        return ()

    @property
    def trained(self) -> int:
        """Values that may move."""
        if self.masks is not None:
            return sum(int(mask.sum()) for mask in self.masks.values())
        values = sum(parameter.numel() for parameter in self.parameters.values())
        if self.silenced is None:
            return values
        return values // self.silenced.numel() * int((~self.silenced).sum())

    @contextmanager
    def installed(self) -> Iterator[None]:
        """While open the parameters take gradients; after it they hold the base again, bit for bit."""
        live = self.parameters
        try:
            for name, parameter in live.items():
                if self.start is not None:
                    parameter.detach().copy_(self.start[name])
                parameter.requires_grad_(True)
            with silenced_neurons(self.layout, self.silenced):
                yield
        finally:
            with torch.no_grad():
                for name, parameter in live.items():
                    parameter.requires_grad_(False)
                    parameter.grad = None
                    parameter.copy_(self.base[name])

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for parameter in self.parameters.values():
            parameter.grad = None

    def gradients(self) -> list[Tensor]:
        """The gradients, zero where a parameter had none."""
        for parameter in self.parameters.values():
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        return [parameter.grad for parameter in self.parameters.values() if parameter.grad is not None]

    def grad_bytes(self) -> int:
        """Bytes of the gradients that a step makes."""
        return sum(parameter.grad.nbytes for parameter in self.parameters.values() if parameter.grad is not None)

    @torch.no_grad()
    def grad_norm(self) -> Tensor:
        """Euclidean length of the gradient, that of `l1` in it, masked first."""
        grads = []
        total = sum(parameter.numel() for parameter in self.layout.model.parameters())
        for name, parameter in self.parameters.items():
            grad = parameter.grad if parameter.grad is not None else torch.zeros_like(parameter)
            if self.l1:
                grad.add_((parameter - self.base[name]).sign(), alpha=self.l1 / total)
            parameter.grad = grad if self.masks is None else grad.mul_(self.masks[name])
            grads.append(parameter.grad.norm())
        return torch.stack(grads).norm()

    @torch.no_grad()
    def step(self, learning_rate: float, grad_scale: float) -> None:
        """One AdamW step of every parameter."""
        live = self.parameters
        if self.decay:
            for name, parameter in live.items():
                parameter.add_(self.base[name] - parameter, alpha=learning_rate * self.decay)
        grads = [parameter.grad for parameter in live.values() if parameter.grad is not None]
        adamw_step(
            live,
            grads,
            self.moments,
            learning_rate=learning_rate,
            grad_scale=grad_scale,
            betas=self.betas,
            epsilon=self.epsilon,
        )

    def state(self) -> dict[str, Tensor]:
        """Parameters, moments and steps, live."""
        return {**self.values(), **self.moments}

    def values(self) -> dict[str, Tensor]:
        """The parameters, live."""
        return {f"value/{name}": parameter.detach() for name, parameter in self.parameters.items()}

    def refresh(self) -> None:
        """The live tensors are the model's own: nothing to do."""


@contextmanager
def silenced_neurons(layout: Layout, silenced: Bool[Tensor, "layer neuron"] | None) -> Iterator[None]:
    """While open, these neurons of the MLPs are 0 in every pass, whose gradients go through the others alone."""
    with ExitStack() as stack:
        for layer, row in enumerate(() if silenced is None else ~silenced):

            def change(value: Tensor, row: Tensor = row) -> Tensor:
                return value * row.to(value)

            stack.enter_context(layout.edit(Site(layer, "mlp_inner"), change))
        yield


def parameter_names(layout: Layout, of: Callable[[str], bool] = lambda name: True) -> tuple[str, ...]:
    """Names of the parameters for which `of` says yes; a tied one is named once."""
    return tuple(name for name, _ in layout.model.named_parameters() if of(name))


def ffn_names(layout: Layout) -> tuple[str, ...]:
    """Names of the weights of all MLPs: in-projections and down projections, no biases, norms or routers."""
    storages = {
        rows.untyped_storage().data_ptr()
        for layer in range(layout.n_layers)
        for rows in layout.neuron_rows(layer).values()
    }
    return tuple(
        name for name, weight in layout.model.named_parameters() if weight.untyped_storage().data_ptr() in storages
    )
