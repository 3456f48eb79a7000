"""Eval mode, gradients and the model's own precision, for a while; each module's own flag given back."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import torch
from torch import nn

from babelscope.errors import MeasurementError, SteeringError
from babelscope.models.runners import Runner

_LOCK = threading.Lock()
_STEERED: WeakKeyDictionary[nn.Module, Runner] = WeakKeyDictionary()
"""Who steers a model."""
_STEERINGS: WeakKeyDictionary[nn.Module, list[Callable[[], str]]] = WeakKeyDictionary()
"""What steers a model, the outer first; each tells its name when it is asked."""


@dataclass
class _Mode:
    users: int = 0
    threads: list[int] = field(default_factory=list)
    """Of each user."""
    trained: list[nn.Module] = field(default_factory=list)
    """Modules that were in train mode."""


_MODES: WeakKeyDictionary[nn.Module, _Mode] = WeakKeyDictionary()


@contextmanager
def own_precision() -> Iterator[None]:
    """While open nothing is cast by a torch.autocast around it: what is measured is in the model's own dtype."""
    accelerator = torch.accelerator.current_accelerator()
    devices = ["cpu"] if accelerator is None else ["cpu", accelerator.type]
    with ExitStack() as stack:
        for device in devices:
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        yield


@contextmanager
def gradients_on() -> Iterator[None]:
    """While open gradients are worked out, in the model's own precision, whatever the caller has set around it."""
    with torch.inference_mode(False), torch.enable_grad(), own_precision():
        yield


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """While open every module of the model is in eval mode, in its own precision; on any exit each gets its flag back.

    Contexts nest, also in several threads: the last to leave gives the flags back.
    Raises MeasurementError for a model that another thread, or task of asyncio, steers: what is measured would be
    steered too.
    """
    mine = threading.get_ident()
    with _LOCK:
        steerer = _STEERED.get(model)
        if steerer is not None and steerer.is_another():
            raise MeasurementError(
                "another thread or task steers this model, and what is measured here would be steered with it; "
                "expected one on one model; give each a model of its own, or take turns"
            )
        mode = _MODES.setdefault(model, _Mode())
        mode.users += 1
        mode.threads.append(mine)
        training = [module for module in model.modules() if module.training]
        mode.trained += training
        for module in training:
            module.training = False
    try:
        with own_precision():
            yield
    finally:
        with _LOCK:
            mode.users -= 1
            mode.threads.remove(mine)
            if not mode.users:
                for module in mode.trained:
                    module.training = True
                del _MODES[model]


@contextmanager
def named_steering(model: nn.Module, name: Callable[[], str]) -> Iterator[None]:
    """While open, what is made of the model is said to be of the model steered so; name: a hash of all that decides."""
    with _LOCK:
        _STEERINGS.setdefault(model, []).append(name)
    try:
        yield
    finally:
        with _LOCK:
            _STEERINGS[model].remove(name)


def steering_name(model: nn.Module) -> str:
    """The names of what steers a model now, joined; empty where nothing does."""
    return " + ".join(name() for name in _STEERINGS.get(model, ()))


def refuse_steered(model: nn.Module) -> None:
    """Raise MeasurementError while a model is steered, for what compares it with the plain one or trains it."""
    if steering_name(model):
        raise MeasurementError(
            "this model is steered now (babelscope.steer), and what is measured would be said of the plain one; "
            "expected the plain one; leave the with-block of steer first"
        )


@contextmanager
def steered_alone(model: nn.Module) -> Iterator[None]:
    """While open no other thread may measure the model; raises SteeringError where one is about it."""
    mine = threading.get_ident()
    with _LOCK:
        if model in _MODES and {*_MODES[model].threads} != {mine}:
            raise SteeringError(
                "another thread measures this model, and its texts would be steered; expected one thread on one model; "
                "give each thread a model of its own, or take turns"
            )
        _STEERED[model] = Runner()
    try:
        yield
    finally:
        with _LOCK:
            _STEERED.pop(model, None)
