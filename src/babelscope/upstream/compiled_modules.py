"""Marks that torch.compile leaves."""

import sys

import torch
from torch import nn

from babelscope.upstream.names import attribute, imported


def is_compiled(module: nn.Module) -> bool:
    """Whether a module was itself replaced by compiled code."""
    if attribute(module, "torch.nn.compiled_call", library="torch") is not None:
        return True
    if "torch._dynamo" not in sys.modules:
        return False
    if isinstance(module, imported("torch._dynamo", "torch._dynamo.module")):
        return True
    forward = vars(module).get("forward")
    return forward is not None and imported("torch._dynamo.eval_frame", "torch._dynamo.origin")(forward) is not forward


def compiled_frames() -> int:
    """Frames compiled in this process so far; 0 where nothing was."""
    if "torch._dynamo.utils" not in sys.modules:
        return 0
    return int(imported("torch._dynamo.utils", "torch._dynamo.utils")["frames"]["total"])


def drop_graphs() -> None:
    """Have every compiled graph made anew at its next use."""
    torch.compiler.reset()
