"""A bound on how long a chat template may run: templates are programs of strangers, and some never end."""

import ctypes
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from babelscope.errors import ChatError
from babelscope.files.limits import TEMPLATE

R = TypeVar("R")
SECONDS = 10.0
"""Of one conversation; templates take milliseconds."""
POLL = 0.02
PAGES = Path("/proc/self/statm")


class _TemplateStopped(Exception):
    """Raised inside a template that ran too long or took too much memory."""


class _Watch:
    """Ends what one thread runs when it takes too long or too much memory."""

    def __init__(self) -> None:
        self.thread = ctypes.c_ulong(threading.get_ident())
        self.over = threading.Event()
        self.lock = threading.Lock()
        self.reason = ""
        self.watcher = threading.Thread(target=self.watch, name="template watch", daemon=True)

    def watch(self) -> None:
        """Look at the clock and the memory until the template has ended."""
        began, before = time.monotonic(), memory_bytes()
        while not self.over.wait(POLL):
            if time.monotonic() - began > SECONDS:
                self.stop(f"ran for {SECONDS:g} seconds and had not ended; expected milliseconds")
            elif memory_bytes() - before > TEMPLATE.bytes:
                self.stop(f"took more memory than it may; {TEMPLATE.advice}")

    def stop(self, reason: str) -> None:
        """Raise _TemplateStopped in the thread; again at the next look, where the template caught it."""
        with self.lock:
            if not self.over.is_set():
                self.reason = reason
                ctypes.pythonapi.PyThreadState_SetAsyncExc(self.thread, ctypes.py_object(_TemplateStopped))

    def end(self) -> None:
        """The template has ended: nothing is raised from here on."""
        with self.lock:
            self.over.set()
        ctypes.pythonapi.PyThreadState_SetAsyncExc(self.thread, None)


def within_bounds(run: Callable[[], R]) -> R:
    """What a template gives; raises ChatError where it does not end in time, or takes too much memory.

    One long step of C code, such as the repetition of a text, is ended when it is over.
    """
    watch = _Watch()
    watch.watcher.start()
    try:
        try:
            return run()
        finally:
            watch.end()
    except _TemplateStopped:
        raise ChatError(
            f"the model's chat template {watch.reason}; set tokenizer.chat_template to one that you trust"
        ) from None


def memory_bytes() -> int:
    """Memory that this process has now; 0 where the system does not say it in a file."""
    try:
        return int(PAGES.read_text().split()[1]) * 4096
    except OSError:
        return 0
