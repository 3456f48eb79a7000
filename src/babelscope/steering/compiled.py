"""Compiled graphs do not look at hooks: those compiled around a model are dropped (see also `models.plain`)."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from babelscope.upstream.compiled_modules import compiled_frames, drop_graphs

log = logging.getLogger(__name__)

_dropped: dict[str, int] = {"frames": 0}
"""Frames that had been compiled when graphs were last dropped."""


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
