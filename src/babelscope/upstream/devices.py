"""What accelerate leaves on modules whose weights are spread over devices."""

from contextlib import AbstractContextManager
from functools import lru_cache

import torch
from torch import nn

from babelscope.upstream.names import NAMES, attribute, imported, missing_name


def execution_device(module: nn.Module) -> torch.device | None:
    """Device on which accelerate runs a module, or the first of its parts that it runs; None where it does not."""
    mark = _mark(NAMES["mark.accelerate"])
    hooks = [vars(part)[mark] for part in module.modules() if mark in vars(part)]
    if not hooks:
        return None
    device_hook = imported("accelerate.hooks", "accelerate.hooks.device")
    sequence = imported("accelerate.hooks", "accelerate.hooks.sequence")
    for hook in hooks:
        for part in hook.hooks if isinstance(hook, sequence) else (hook,):
            if isinstance(part, device_hook):
                place = attribute(part, "accelerate.hooks.place", library="accelerate")
                if place is not None:
                    return torch.device(place)
    return None


@lru_cache(maxsize=8)
def _mark(names: tuple[str, ...]) -> str:
    """Attribute in which accelerate keeps a module's hook, seen on a module that was given one."""
    plain = imported("accelerate.hooks", "accelerate.hooks.plain")
    hooked = imported("accelerate.hooks", "accelerate.hooks.add")(nn.Identity(), plain())
    for name in names:
        if name in vars(hooked):
            return name
    raise missing_name("mark.accelerate", "a module with a hook of accelerate", "accelerate")


def empty_weights(*, buffers: bool) -> AbstractContextManager[None]:
    """While open, models are built without memory for their weights; buffers: without any for theirs either."""
    return imported("accelerate", "accelerate.empty")(include_buffers=buffers)


def fetched(module: nn.Module) -> AbstractContextManager[None]:
    """While open, a module's offloaded weights are on its device."""
    return imported("accelerate.utils", "accelerate.utils.fetch")(module)
