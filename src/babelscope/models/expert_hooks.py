"""Hooks on a mixture of experts: its router's scores, and the neurons of experts fused in one module."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from einops import rearrange
from torch import nn

from babelscope.axes import Float, Int, Tensor
from babelscope.models.family import Family
from babelscope.models.hooks import Call, chosen_experts, expert_weights
from babelscope.models.plain import CausalModel
from babelscope.upstream.names import NAMES, attribute
from babelscope.upstream.registries import experts_run_by, run_experts_by

Chosen = tuple[Float[Tensor, "token k"], Int[Tensor, "token k"]]
"""Weights and indices of each token's experts."""
Choose = Callable[[Tensor, int], Chosen]
"""A router's scores, [token, expert], and top_k → weights and indices of the chosen experts, [token, top_k]."""


def softmax_choice(renormalise: bool) -> Choose:
    """The experts of the largest scores, each with its share of the softmax; renormalise: shares sum to one."""

    def choose(scores: Float[Tensor, "token expert"], top_k: int) -> Chosen:
        top, index = torch.topk(torch.softmax(scores, dim=-1, dtype=torch.float32), top_k, dim=-1)
        return (top / top.sum(dim=-1, keepdim=True) if renormalise else top), index

    return choose


def softmax_of_chosen(scores: Float[Tensor, "token expert"], top_k: int) -> Chosen:
    """The experts of the largest scores, weighed by a softmax over theirs alone, in the scores' own dtype (gpt-oss)."""
    top, index = torch.topk(scores, top_k, dim=-1)
    return torch.softmax(top, dim=-1), index


def sparsemixer_choice(slack: float) -> Choose:
    """The experts that Phi-MoE takes outside training, one after the other.

    Each is the best left, weighed by a softmax over the scores that are near it: those with
    (best − score) / max(|score|, best) ≤ 2 · slack.
    """

    def choose(scores: Float[Tensor, "token expert"], top_k: int) -> Chosen:
        remaining, weights, indices = scores, [], []
        for _ in range(top_k):
            best, index = remaining.max(dim=-1, keepdim=True)
            far = (best - scores) / scores.abs().clamp(min=best) > 2 * slack
            weights.append(torch.softmax(remaining.masked_fill(far, float("-inf")), dim=-1).gather(-1, index))
            indices.append(index)
            remaining = remaining.scatter(-1, index, float("-inf"))
        return torch.cat(weights, dim=-1), torch.cat(indices, dim=-1)

    return choose


def router_choice(family: Family, router: nn.Module, renormalise: bool) -> Choose:
    """How a family's router chooses its experts and weighs them."""
    if family.routing == "sparsemixer":
        return sparsemixer_choice(attribute(router, "router.slack"))
    return softmax_of_chosen if family.routing == "chosen" else softmax_choice(renormalise)


def hook_router(stack: ExitStack, router: nn.Module, call: Call, shape: list[int], choose: Choose) -> None:
    """Show a router's scores before they choose; a write chooses the experts, and weighs them, anew."""

    def after(_: nn.Module, args: tuple, output: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor] | None:
        scores, weights, chosen = output
        shaped = scores.unflatten(0, shape[:2])
        new = call(shaped, shaped, None)
        if new is None:
            return None
        flat = new.flatten(0, 1)
        shares, index = choose(flat, chosen.shape[-1])
        return flat, shares.to(weights.dtype), index

    stack.callback(router.register_forward_hook(after).remove)


def hook_experts(
    stack: ExitStack,
    model: CausalModel,
    experts: nn.Module,
    call: Call,
    shape: list[int],
    *,
    act: nn.Module | None = None,
    glu: bool = False,
) -> None:
    """Show an activation of fused experts, which run on (token, expert) pairs, in the order of tokens.

    act: the activation function, for its output; without it the product with the up-projection.
    glu: the gate's part of that product instead, where gpt-oss computes both in one method.
    """
    routes: list[Tensor] = []

    def remember(_: nn.Module, args: tuple, kwargs: dict) -> None:
        routes[:] = [chosen_experts(args, kwargs)]

    def show(output: Tensor, sign: Tensor) -> Tensor | None:
        chosen = routes[0]
        pairs = torch.arange(chosen.numel(), device=chosen.device)
        # Decoding on a GPU, generate swaps the grouped form (sorted by expert) for the batched one (unsorted).
        batched = experts_run_by(model) == "batched_mm"
        order = pairs if batched else torch.sort(chosen.reshape(-1))[1]
        inverse = torch.empty_like(order)
        inverse[order] = pairs
        sizes = {"b": shape[0], "t": shape[1], "k": chosen.shape[-1]}
        ordered, signs = (rearrange(rows[inverse], "(b t k) d -> b t k d", **sizes) for rows in (output, sign))
        new = call(ordered, signs, rearrange(chosen, "(b t) k -> b t k", b=shape[0], t=shape[1]))
        return None if new is None else rearrange(new, "b t k d -> (b t k) d")[order]

    stack.enter_context(_grouped_experts(model))
    stack.callback(experts.register_forward_pre_hook(remember, with_kwargs=True).remove)
    if act is None:
        stack.enter_context(_looking(experts, glu, lambda output: show(output, output)))
    else:

        def after(_: nn.Module, args: tuple, output: Tensor) -> Tensor | None:
            return show(output, args[0])

        stack.callback(act.register_forward_hook(after).remove)


@contextmanager
def weights_given(experts: Sequence[nn.Module]) -> Iterator[list[Float[Tensor, "token k"] | None]]:
    """While open, what each of these experts' modules was last given as the weights of each token's experts."""
    weights: list[Tensor | None] = [None] * len(experts)

    def remember(place: int) -> Callable[[nn.Module, tuple, dict], None]:
        def before(_: nn.Module, args: tuple, kwargs: dict) -> None:
            weights[place] = expert_weights(args, kwargs)

        return before

    with ExitStack() as stack:
        for place, module in enumerate(experts):
            stack.callback(module.register_forward_pre_hook(remember(place), with_kwargs=True).remove)
        yield weights


Look = Callable[[Tensor], Tensor | None]
_LOOKS: WeakKeyDictionary[nn.Module, tuple[list[Look], list[Look]]] = WeakKeyDictionary()
"""Who looks at each experts' module: at the gate's part (gpt-oss), and at the product; the first to come first."""


@contextmanager
def _looking(experts: nn.Module, glu: bool, show: Look) -> Iterator[None]:
    """Stand at the method in which transformers' experts multiply gate and up, on that one object."""
    gates, products = looks = _LOOKS.setdefault(experts, ([], []))
    if not any(looks):
        plain: Callable[[Tensor], Tensor] = attribute(experts, "experts.gated_product")

        def gated(gate_up: Tensor) -> Tensor:
            value = _product(experts, plain, gate_up, gates)
            for look in tuple(products):
                new = look(value)
                value = value if new is None else new
            return value

        (name,) = NAMES["experts.gated_product"]
        object.__setattr__(experts, name, gated)
    lookers = gates if glu else products
    lookers.append(show)
    try:
        yield
    finally:
        lookers.remove(show)
        if not any(looks):
            (name,) = NAMES["experts.gated_product"]
            object.__delattr__(experts, name)


def _product(experts: Any, plain: Callable[[Tensor], Tensor], gate_up: Tensor, gates: list[Look]) -> Tensor:
    """gpt-oss multiplies (up + 1) and glu(gate), with alternating columns; what is written replaces glu(gate)."""
    if not gates:
        return plain(gate_up)
    silent = gate_up.clone()
    silent[..., 1::2] = 0
    # With up at 0 the product is the gate's part alone, in the model's own arithmetic.
    value, written = plain(silent), False
    for look in tuple(gates):
        new = look(value)
        value, written = (value, written) if new is None else (new, True)
    if not written:
        return plain(gate_up)
    limit = attribute(experts, "experts.limit")
    return (gate_up[..., 1::2].clamp(min=-limit, max=limit) + 1) * value


_GROUPED: WeakKeyDictionary[nn.Module, list[str | None]] = WeakKeyDictionary()
"""For each model with open hooks on its experts, the implementations met on entry; the first is the user's choice."""


@contextmanager
def _grouped_experts(model: CausalModel) -> Iterator[None]:
    """Run experts in transformers' grouped form, whose row order is known; the last to leave restores the choice."""
    users = _GROUPED.setdefault(model, [])
    users.append(experts_run_by(model))
    try:
        if users[-1] != "grouped_mm":
            run_experts_by(model, "grouped_mm")
        yield
    finally:
        last = users.pop()
        if not users and last is not None and last != "grouped_mm":
            run_experts_by(model, last)
