"""Eval mode for a while, each module's own flag given back."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

from torch import nn

_LOCK = threading.Lock()


@dataclass
class _Mode:
    users: int = 0
    trained: list[nn.Module] = field(default_factory=list)
    """Modules that were in train mode."""


_MODES: WeakKeyDictionary[nn.Module, _Mode] = WeakKeyDictionary()


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """While open every module of the model is in eval mode; on any exit each gets its own flag back.

    Contexts nest, also in several threads: the last to leave gives the flags back.
    """
    with _LOCK:
        mode = _MODES.setdefault(model, _Mode())
        mode.users += 1
        training = [module for module in model.modules() if module.training]
        mode.trained += training
        for module in training:
            module.training = False
    try:
        yield
    finally:
        with _LOCK:
            mode.users -= 1
            if not mode.users:
                for module in mode.trained:
                    module.training = True
                del _MODES[model]
