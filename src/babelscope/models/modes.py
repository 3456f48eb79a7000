"""Eval mode, and gradients, for a while; each module's own flag given back."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import torch
from torch import nn

from babelscope.errors import MeasurementError, SteeringError

_LOCK = threading.Lock()
_STEERED: WeakKeyDictionary[nn.Module, int] = WeakKeyDictionary()
"""The thread that steers a model."""


@dataclass
class _Mode:
    users: int = 0
    threads: list[int] = field(default_factory=list)
    """Of each user."""
    trained: list[nn.Module] = field(default_factory=list)
    """Modules that were in train mode."""


_MODES: WeakKeyDictionary[nn.Module, _Mode] = WeakKeyDictionary()


@contextmanager
def gradients_on() -> Iterator[None]:
    """While open gradients are worked out, whatever the caller has switched off around it."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """While open every module of the model is in eval mode; on any exit each gets its own flag back.

    Contexts nest, also in several threads: the last to leave gives the flags back.
    Raises MeasurementError for a model that another thread steers: what is measured would be steered too.
    """
    mine = threading.get_ident()
    with _LOCK:
        if _STEERED.get(model, mine) != mine:
            raise MeasurementError(
                "another thread steers this model, and what is measured here would be steered with it; expected one "
                "thread on one model; give each thread a model of its own, or take turns"
            )
        mode = _MODES.setdefault(model, _Mode())
        mode.users += 1
        mode.threads.append(mine)
        training = [module for module in model.modules() if module.training]
        mode.trained += training
        for module in training:
            module.training = False
    try:
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
def steered_alone(model: nn.Module) -> Iterator[None]:
    """While open no other thread may measure the model; raises SteeringError where one is about it."""
    mine = threading.get_ident()
    with _LOCK:
        if model in _MODES and {*_MODES[model].threads} != {mine}:
            raise SteeringError(
                "another thread measures this model, and its texts would be steered; expected one thread on one model; "
                "give each thread a model of its own, or take turns"
            )
        _STEERED[model] = mine
    try:
        yield
    finally:
        with _LOCK:
            _STEERED.pop(model, None)
