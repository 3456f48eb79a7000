"""Two exact ways to train some neurons of a frozen MLP: split (any family), and fused (gated dense MLPs)."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import nn

from babelscope.axes import Float, Int, Tensor
from babelscope.errors import PrerequisiteError
from babelscope.models import Layout
from babelscope.models.hooks import chosen_experts, expert_weights, first_argument
from babelscope.subnetworks.bank import Bank
from babelscope.subnetworks.frozen_mlp import ACTIVATIONS, FrozenMLP, Recompute
from babelscope.subnetworks.linears import frozen_linears
from babelscope.subnetworks.norms import frozen_norms, restore_forward

Form = Literal["auto", "split", "fused"]


def choose_form(layout: Layout, form: Form) -> Literal["split", "fused"]:
    """The written rule: fused for dense gated MLPs without biases, hooks or an unknown activation, else split.

    Raises PrerequisiteError where "fused" is asked for and the rule says no.
    """
    refuse_joined_neurons(layout)
    why = why_not_fused(layout)
    if form == "fused" and why:
        raise PrerequisiteError(f"form 'fused' cannot train this model: {', '.join(why)}; use 'auto' or 'split'")
    return "split" if form == "split" or why else "fused"


def why_not_fused(layout: Layout) -> list[str]:
    """What stands against the fused form of these MLPs."""
    objections = [
        (not layout.gated, "the MLP is plain"),
        (bool(layout.n_experts), "the MLP has experts"),
        (layout.gated and bool(layout.neuron_biases(0)), "the MLP has biases"),
        (type(layout.act(0)).__name__ not in ACTIVATIONS, f"its activation is {type(layout.act(0)).__name__}"),
        (has_hooks(layout), "hooks stand inside the MLP"),
    ]
    return [text for applies, text in objections if applies]


def why_joined(layout: Layout) -> list[str]:
    """Why an MLP is no sum over act(gate·x)(up·x) down."""
    family = layout.family
    reasons = (
        (family.inner_norm, f"{family.inner_norm} norms them together before the down projection"),
        (family.interleaved, "its experts multiply clamped sums, not act(gate·x) and up·x"),
        (not family.act, "its activation function is no module"),
    )
    return [text for applies, text in reasons if applies]


def refuse_joined_neurons(layout: Layout) -> None:
    """Raise PrerequisiteError where an MLP is no sum over its neurons, so that they cannot run apart."""
    if why := why_joined(layout):
        raise PrerequisiteError(
            f"neurons of {layout.model.config.model_type} cannot be trained one by one: {why[0]}; expected a family "
            "whose MLP is a sum over neurons; train with peft's LoRA, or take another model"
        )


def has_hooks(layout: Layout) -> bool:
    """Whether anything watches or edits the inside of an MLP, which the fused form would pass by."""
    names = [name for name in (layout.family.act, layout.family.gate, layout.family.up, layout.family.down) if name]
    modules = [layout.layer(layer).get_submodule(name) for layer in range(layout.n_layers) for name in names]
    return any(module._forward_hooks or module._forward_pre_hooks for module in modules)


@contextmanager
def split_form(bank: Bank) -> Iterator[None]:
    """While open, the chosen neurons run from the masters beside a frozen MLP in which they give nothing.

    FFN neurons are additive, so the sum is the MLP with the masters in it, and stock autograd does the rest.
    """
    layout = bank.layout
    with bank.borrowed(), ExitStack() as stack:
        with torch.no_grad():
            for layer in bank.layers:
                part = bank.part(layer, "down")
                layout.neuron_rows(layer)["down"][part.expert, part.neuron] = 0
        for layer in bank.layers:
            small = SmallMLP(bank, layer)
            block = layout.layer(layer)
            if layout.n_experts:
                source = target = layout.experts(layer)
            else:
                source, target = (block.get_submodule(name) for name in (layout.family.up, layout.family.down))
            stack.callback(source.register_forward_pre_hook(small.see, with_kwargs=True).remove)
            stack.callback(target.register_forward_hook(small.add).remove)
        yield


class SmallMLP:
    """The chosen neurons of one layer as an MLP of their own, with the masters as weights."""

    def __init__(self, bank: Bank, layer: int) -> None:
        layout, span = bank.layout, bank.span(layer)
        self.leaf = bank.master[span].detach().requires_grad_()
        self.leaf.grad = bank.grad[span]
        self.roles = [part.role for part in bank.parts if part.layer == layer]
        part = bank.part(layer, "down")
        self.experts = part.expert if layout.n_experts else None
        self.n_experts = layout.n_experts
        biases = layout.neuron_biases(layer)
        self.biases = {role: bias.detach()[part.expert, part.neuron] for role, bias in biases.items()}
        self.act = type(layout.act(layer)).forward
        self.module = layout.act(layer)
        self.seen: list[Tensor] = []

    def see(self, _: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        """Keep what the MLP is given, until its output comes."""
        routing = (chosen_experts, expert_weights) if self.n_experts else ()
        self.seen[:] = [argument(args, kwargs) for argument in (first_argument, *routing)]

    def add(self, _: nn.Module, args: tuple, output: Tensor) -> Tensor:
        """The MLP's output with the chosen neurons' part."""
        hidden, *routing = self.seen
        self.seen.clear()
        return output + self.forward(hidden, *routing)

    def forward(
        self,
        hidden: Float[Tensor, "*rows hidden"],
        chosen: Int[Tensor, "rows top_k"] | None = None,
        weights: Float[Tensor, "rows top_k"] | None = None,
    ) -> Float[Tensor, "*rows hidden"]:
        """Σ over the chosen neurons of act(gate·x)(up·x) down, each times its expert's routing weight."""
        w = dict(zip(self.roles, self.leaf.to(hidden.dtype).chunk(len(self.roles)), strict=True))
        up = F.linear(hidden, w["up"], self.biases.get("up"))
        if "gate" in w:
            inner = self.act(self.module, F.linear(hidden, w["gate"], self.biases.get("gate"))) * up
        else:
            inner = self.act(self.module, up)
        if self.experts is not None:
            assert chosen is not None and weights is not None
            share = torch.zeros(len(hidden), self.n_experts, dtype=weights.dtype, device=hidden.device)
            inner = inner * share.scatter_add(1, chosen, weights)[:, self.experts].to(inner.dtype)
        return inner @ w["down"]


@contextmanager
def fused_form(bank: Bank, *, lowest: int, recompute: Recompute = "nothing") -> Iterator[None]:
    """While open, the model's rows hold the masters, and its MLPs give gradients of the chosen rows only.

    The forward pass is the model's own dense one, its products in oneDNN's order of summation where that is faster;
    norms that are frozen too go back by a shorter way. lowest: the first layer that gradients pass. recompute:
    "nothing" keeps the two pre-activations for the backward pass, "mlp" works them out again from the MLP's input.
    """
    with bank.borrowed(), frozen_passes(bank.layout, lowest, bank, recompute=recompute):
        bank.write(bank.master)
        yield


@contextmanager
def frozen_passes(
    layout: Layout, lowest: int, bank: Bank | None = None, *, recompute: Recompute = "nothing"
) -> Iterator[None]:
    """While open, frozen norms, linear maps and gated MLPs go back by shorter ways; MLPs give gradients of a bank."""
    with frozen_norms(layout, lowest), frozen_linears(layout), ExitStack() as stack:
        anchor = None if bank is None else bank.master.detach().requires_grad_()
        for layer in range(lowest, layout.n_layers):
            trained = bank if bank is not None and layer in bank.layers else None
            frozen = FrozenMLP(layout, layer, trained, None if trained is None else anchor, recompute)
            module = layout.mlp(layer)
            stack.callback(restore_forward, module, vars(module).get("forward"))
            # An attribute of this one object stands before its class's method; deleting it brings that back.
            object.__setattr__(module, "forward", frozen)
        yield
