"""Plain hooks that show, and may replace, the value at one place; all are gone when their stack closes."""

import threading
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from einops import rearrange
from torch import nn

from babelscope.axes import Tensor
from babelscope.errors import SiteError
from babelscope.sites import Site
from babelscope.upstream.names import parameter_name

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

    def bound(value: Tensor, sign_source: Tensor, routes: Tensor | None) -> Tensor | None:
        if threading.get_ident() != owner:
            raise SiteError(
                f"site '{site}' is read or written by one thread, and another ran the model; expected one thread on "
                "one model; give each thread a model of its own, or take turns"
            )
        return call(value, sign_source, routes)

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
    stack: ExitStack,
    module: nn.Module,
    call: Call,
    *,
    signed: bool = False,
    shape: list[int] | None = None,
    in_place: bool = False,
) -> None:
    """Show a module's output, or the first of several; signed: the sign source is the module's input.

    in_place: what comes after writes into the output, so that those who look get a copy.
    """

    def after(_: nn.Module, args: tuple, output: Any) -> Any:
        value = output[0] if isinstance(output, tuple) else output
        value = value.clone() if in_place else value
        sign_source = args[0] if signed else value
        # Unrolled for graphs compiled around the model, which cannot trace a checked helper.
        shaped, sign_source = (
            (value.unflatten(0, shape[:2]), sign_source.unflatten(0, shape[:2])) if shape else (value, sign_source)
        )
        new = call(shaped, sign_source, None)
        if new is None:
            return None
        new = new.reshape(value.shape)
        new = new.clone() if in_place else new
        return (new, *output[1:]) if isinstance(output, tuple) else new

    stack.callback(module.register_forward_hook(after).remove)


def first_argument(args: tuple, kwargs: dict) -> Tensor:
    """The stream that a module is given, with or without its name."""
    return args[0] if args else kwargs[_hidden_name(kwargs)]


def chosen_experts(args: tuple, kwargs: dict) -> Tensor:
    """Which experts each token goes to, from a call of the fused experts, with or without its name."""
    return args[1] if len(args) > 1 else kwargs[parameter_name(kwargs, "experts.chosen", "a call of the experts")]


def expert_weights(args: tuple, kwargs: dict) -> Tensor:
    """The weights that a call of fused experts gives each token's experts."""
    return args[2] if len(args) > 2 else kwargs[parameter_name(kwargs, "experts.weights", "a call of the experts")]


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
    changes: list[Tensor] = []

    def note(value: Tensor, sign_source: Tensor, routes: Tensor | None) -> Tensor | None:
        changes.clear()
        new = call(value, sign_source, routes)
        if new is not None:
            wide = torch.promote_types(value.dtype, torch.float32)
            changes.append(new.to(wide) - value.to(wide))
        return new

    def after(_: nn.Module, args: tuple, output: Any) -> Any:
        if not changes:
            return None
        value = output[0] if isinstance(output, tuple) else output
        new = (value + changes.pop()).to(value.dtype)
        return (new, *output[1:]) if isinstance(output, tuple) else new

    hook_input(stack, norm, note, device=device, shape=shape)
    stack.callback(block.register_forward_hook(after, prepend=True).remove)
