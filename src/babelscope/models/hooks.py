"""Plain hooks that show, and may replace, the value at one place; all are gone when their stack closes."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from einops import rearrange
from torch import nn
from transformers import PreTrainedModel

from babelscope.axes import Tensor

See = Callable[[Tensor, Tensor, Tensor | None], None]
"""Called with the value, the tensor whose sign says active, and an MoE's chosen experts `[batch, token, top_k]`."""
Edit = Callable[[Tensor], Tensor | None]
"""Called with the value; what it returns replaces it, None leaves it untouched."""
RoutedEdit = Callable[[Tensor, Tensor | None], Tensor | None]
"""The same, called with the value and the chosen experts `[batch, token, top_k]`, None in a dense model."""
Call = Callable[[Tensor, Tensor, Tensor | None], Tensor | None]
"""Value, sign source, chosen experts → the new value, or None."""


def hook_input(
    stack: ExitStack, module: nn.Module, call: Call, *, heads: int = 0, shape: list[int] | None = None
) -> None:
    """Show a module's first argument; heads: split its last axis in so many; shape: the batch's, if rows are flat."""

    def before(_: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
        value = args[0] if args else kwargs["hidden_states"]
        shaped = rearrange(value, "b t (h d) -> b t h d", h=heads) if heads else _with_batch(value, shape)
        new = call(shaped, shaped, None)
        if new is None:
            return None
        new = new.reshape(value.shape)
        return ((new, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": new})

    stack.callback(module.register_forward_pre_hook(before, with_kwargs=True).remove)


def hook_output(
    stack: ExitStack, module: nn.Module, call: Call, *, signed: bool = False, shape: list[int] | None = None
) -> None:
    """Show a module's output, or the first of several; signed: the sign source is the module's input."""

    def after(_: nn.Module, args: tuple, output: Any) -> Any:
        value = output[0] if isinstance(output, tuple) else output
        shaped = _with_batch(value, shape)
        new = call(shaped, _with_batch(args[0], shape) if signed else shaped, None)
        if new is None:
            return None
        new = new.reshape(value.shape)
        return (new, *output[1:]) if isinstance(output, tuple) else new

    stack.callback(module.register_forward_hook(after).remove)


def _with_batch(value: Tensor, shape: list[int] | None) -> Tensor:
    return value.unflatten(0, shape[:2]) if shape and value.ndim == 2 else value


def shape_of(stack: ExitStack, module: nn.Module) -> list[int]:
    """A list that holds the shape of the module's last input."""
    shape: list[int] = []

    def remember(_: nn.Module, args: tuple, kwargs: dict) -> None:
        shape[:] = (args[0] if args else kwargs["hidden_states"]).shape

    stack.callback(module.register_forward_pre_hook(remember, with_kwargs=True).remove)
    return shape


def hook_experts(
    stack: ExitStack, model: PreTrainedModel, experts: nn.Module, act: nn.Module, call: Call, shape: list[int]
) -> None:
    """Show an activation of fused experts, which run on (token, expert) pairs, in the order of tokens."""
    config = model.config
    routes: list[Tensor] = []

    def remember(_: nn.Module, args: tuple, kwargs: dict) -> None:
        routes[:] = [args[1] if len(args) > 1 else kwargs["top_k_index"]]

    def after(_: nn.Module, args: tuple, output: Tensor) -> Tensor | None:
        chosen = routes[0]
        pairs = torch.arange(chosen.numel(), device=chosen.device)
        # Decoding on a GPU, generate swaps the grouped form (sorted by expert) for the batched one (unsorted).
        batched = config._experts_implementation == "batched_mm"
        order = pairs if batched else torch.sort(chosen.reshape(-1))[1]
        inverse = torch.empty_like(order)
        inverse[order] = pairs
        sizes = {"b": shape[0], "t": shape[1], "k": chosen.shape[-1]}
        value, sign = (rearrange(rows[inverse], "(b t k) d -> b t k d", **sizes) for rows in (output, args[0]))
        new = call(value, sign, rearrange(chosen, "(b t) k -> b t k", b=shape[0], t=shape[1]))
        return None if new is None else rearrange(new, "b t k d -> (b t k) d")[order]

    stack.enter_context(_grouped_experts(model))
    stack.callback(experts.register_forward_pre_hook(remember, with_kwargs=True).remove)
    stack.callback(act.register_forward_hook(after).remove)


_GROUPED: WeakKeyDictionary[nn.Module, list[str | None]] = WeakKeyDictionary()
"""For each model with open hooks on its experts, the implementations met on entry; the first is the user's choice."""


@contextmanager
def _grouped_experts(model: PreTrainedModel) -> Iterator[None]:
    """Run experts in transformers' grouped form, whose row order is known; the last to leave restores the choice."""
    users = _GROUPED.setdefault(model, [])
    users.append(model.config._experts_implementation)
    try:
        if users[-1] != "grouped_mm":
            model.set_experts_implementation("grouped_mm")
        yield
    finally:
        last = users.pop()
        if not users and last != "grouped_mm":
            model.set_experts_implementation(last)
