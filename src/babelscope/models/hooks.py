"""Plain hooks that show, and may replace, the value at one place; all are gone when their stack closes."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from einops import rearrange
from torch import nn

from babelscope.axes import Tensor
from babelscope.errors import SiteError
from babelscope.models.plain import CausalModel
from babelscope.sites import Site
from babelscope.upstream.names import NAMES, attribute, parameter_name
from babelscope.upstream.registries import experts_run_by, run_experts_by

See = Callable[[Tensor, Tensor, Tensor | None], None]
"""Called with the value, the tensor whose sign says active, and an MoE's chosen experts `[batch, token, top_k]`."""
Edit = Callable[[Tensor], Tensor | None]
"""Called with the value; what it returns replaces it, None leaves it untouched."""
RoutedEdit = Callable[[Tensor, Tensor | None], Tensor | None]
"""The same, called with the value and the chosen experts `[batch, token, top_k]`, None in a dense model."""
Call = Callable[[Tensor, Tensor, Tensor | None], Tensor | None]
"""Value, sign source, chosen experts → the new value, or None."""


def in_this_thread(site: Site, call: Call) -> Call:
    """The same, refused where another thread runs the model: nobody asked for its tokens to be seen or changed."""
    owner = threading.get_ident()

    def bound(value: Tensor, sign: Tensor, routes: Tensor | None) -> Tensor | None:
        if threading.get_ident() != owner:
            raise SiteError(
                f"site '{site}' is read or written by one thread, and another ran the model; expected one thread on "
                "one model; give each thread a model of its own, or take turns"
            )
        return call(value, sign, routes)

    return bound


def hook_input(
    stack: ExitStack,
    module: nn.Module,
    call: Call,
    *,
    device: torch.device,
    heads: int = 0,
    shape: list[int] | None = None,
) -> None:
    """Show a module's first argument; heads: split its last axis in so many; shape: the batch's, if rows are flat."""

    def before(_: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
        # A block on another device than the one before moves its input only after this hook.
        value = first_argument(args, kwargs).to(device)
        shaped = rearrange(value, "b t (h d) -> b t h d", h=heads) if heads else value
        shaped = shaped.unflatten(0, shape[:2]) if shape else shaped
        new = call(shaped, shaped, None)
        if new is None:
            return None
        new = new.reshape(value.shape)
        return ((new, *args[1:]), kwargs) if args else (args, {**kwargs, _hidden_name(kwargs): new})

    stack.callback(module.register_forward_pre_hook(before, with_kwargs=True).remove)


def hook_output(
    stack: ExitStack, module: nn.Module, call: Call, *, signed: bool = False, shape: list[int] | None = None
) -> None:
    """Show a module's output, or the first of several; signed: the sign source is the module's input."""

    def after(_: nn.Module, args: tuple, output: Any) -> Any:
        value = output[0] if isinstance(output, tuple) else output
        sign = args[0] if signed else value
        # Unrolled for graphs compiled around the model, which can not trace a checked helper.
        shaped, sign = (value.unflatten(0, shape[:2]), sign.unflatten(0, shape[:2])) if shape else (value, sign)
        new = call(shaped, sign, None)
        if new is None:
            return None
        new = new.reshape(value.shape)
        return (new, *output[1:]) if isinstance(output, tuple) else new

    stack.callback(module.register_forward_hook(after).remove)


def first_argument(args: tuple, kwargs: dict) -> Tensor:
    """The stream that a module is given, with or without its name."""
    return args[0] if args else kwargs[_hidden_name(kwargs)]


def chosen_experts(args: tuple, kwargs: dict) -> Tensor:
    """Which experts each token goes to, from a call of the fused experts, with or without its name."""
    return args[1] if len(args) > 1 else kwargs[parameter_name(kwargs, "experts.chosen", "a call of the experts")]


def _hidden_name(kwargs: dict) -> str:
    return parameter_name(kwargs, "block.hidden", "a call of a module")


def shape_of(stack: ExitStack, module: nn.Module) -> list[int]:
    """A list that holds the shape of the module's last input."""
    shape: list[int] = []

    def remember(_: nn.Module, args: tuple, kwargs: dict) -> None:
        shape[:] = first_argument(args, kwargs).shape

    stack.callback(module.register_forward_pre_hook(remember, with_kwargs=True).remove)
    return shape


def hook_stream(
    stack: ExitStack,
    norm: nn.Module,
    block: nn.Module,
    call: Call,
    *,
    device: torch.device,
    shape: list[int] | None,
) -> None:
    """Show the stream that the MLP's norm reads.

    The block has already put the stream aside to add the MLP's output to; what a write changes there is added to the
    block's output, before any hook at `resid_out`.
    """
    moved: list[Tensor] = []

    def note(value: Tensor, sign: Tensor, routes: Tensor | None) -> Tensor | None:
        moved.clear()
        new = call(value, sign, routes)
        if new is not None:
            wide = torch.promote_types(value.dtype, torch.float32)
            moved.append(new.to(wide) - value.to(wide))
        return new

    def after(_: nn.Module, args: tuple, output: Tensor) -> Tensor | None:
        return (output + moved.pop()).to(output.dtype) if moved else None

    hook_input(stack, norm, note, device=device, shape=shape)
    stack.callback(block.register_forward_hook(after, prepend=True).remove)


def hook_router(stack: ExitStack, router: nn.Module, call: Call, shape: list[int], renormalise: bool) -> None:
    """Show a router's scores before the softmax; a write chooses the experts, and weighs them, anew."""

    def after(_: nn.Module, args: tuple, output: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor] | None:
        scores, weights, chosen = output
        shaped = scores.unflatten(0, shape[:2])
        new = call(shaped, shaped, None)
        if new is None:
            return None
        shares = torch.softmax(new.flatten(0, 1), dim=-1, dtype=torch.float32)
        top, index = torch.topk(shares, chosen.shape[-1], dim=-1)
        top = top / top.sum(dim=-1, keepdim=True) if renormalise else top
        return new.flatten(0, 1), top.to(weights.dtype), index

    stack.callback(router.register_forward_hook(after).remove)


def hook_experts(
    stack: ExitStack, model: CausalModel, experts: nn.Module, act: nn.Module | None, call: Call, shape: list[int]
) -> None:
    """Show an activation of fused experts, which run on (token, expert) pairs, in the order of tokens.

    act: the activation function, for its output; None for the product with the up-projection.
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
        stack.enter_context(_gated_product(experts, lambda output: show(output, output)))
    else:

        def after(_: nn.Module, args: tuple, output: Tensor) -> Tensor | None:
            return show(output, args[0])

        stack.callback(act.register_forward_hook(after).remove)


_PRODUCTS: WeakKeyDictionary[nn.Module, list[Callable[[Tensor], Tensor | None]]] = WeakKeyDictionary()
"""Who looks at the gated product of each experts' module, the first to come first."""


@contextmanager
def _gated_product(experts: nn.Module, show: Callable[[Tensor], Tensor | None]) -> Iterator[None]:
    """Stand at the method in which transformers' experts multiply gate and up, on that one object."""
    shows = _PRODUCTS.setdefault(experts, [])
    if not shows:
        plain: Callable[[Tensor], Tensor] = attribute(experts, "experts.gated_product")

        def gated(gate_up: Tensor) -> Tensor:
            value = plain(gate_up)
            for look in tuple(shows):
                new = look(value)
                value = value if new is None else new
            return value

        (name,) = NAMES["experts.gated_product"]
        object.__setattr__(experts, name, gated)
    shows.append(show)
    try:
        yield
    finally:
        shows.remove(show)
        if not shows:
            (name,) = NAMES["experts.gated_product"]
            object.__delattr__(experts, name)


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
