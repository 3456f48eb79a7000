"""Compiled graphs do not look at hooks: refuse them where they can be seen, drop them where they can not."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from babelscope.errors import PrerequisiteError
from babelscope.upstream.compiled import compiled_frames, drop_graphs, is_compiled

log = logging.getLogger(__name__)

_dropped: dict[str, int] = {"frames": 0}
"""Frames that had been compiled when graphs were last dropped."""


def refuse_compiled(model: nn.Module) -> None:
    """Raise PrerequisiteError if the model, or a part of it, was itself replaced by compiled code."""
    for name, module in model.named_modules():
        if is_compiled(module):
            raise PrerequisiteError(
                f"{name or 'the model'} is compiled, and compiled code does not see hooks; expected a plain model; "
                "steer the model that was handed to torch.compile"
            )


@contextmanager
def fresh_graphs() -> Iterator[None]:
    """Drop compiled graphs on entry and exit.

    The model may run inside a graph compiled elsewhere, made without the hooks; and one made while they stood must not
    outlive them. Such graphs are compiled anew at their next use; where nothing was compiled this costs nothing.
    """
    _drop_graphs()
    try:
        yield
    finally:
        _drop_graphs()


def _drop_graphs() -> None:
    frames = compiled_frames()
    if frames != _dropped["frames"]:
        log.info("graphs compiled so far are dropped: they were made without, or with, steering's hooks")
        drop_graphs()
        _dropped["frames"] = frames
