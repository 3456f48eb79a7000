"""Who runs a model: a thread, and in asyncio one of its tasks."""

import asyncio
import threading
from contextvars import ContextVar
from weakref import WeakSet, ref

_BEGUN: ContextVar["WeakSet[Runner] | None"] = ContextVar("babelscope_runners", default=None)
"""Runners that began something here, or where this task was made."""


class Runner:
    """The thread, and in asyncio the task, that began to steer a model."""

    def __init__(self) -> None:
        self.thread = threading.get_ident()
        task = running_task()
        self._task = None if task is None else ref(task)
        # Never taken back: a notebook leaves a with-block in another task than it entered it, and the dead fall out.
        _BEGUN.set(WeakSet([*(_BEGUN.get() or ()), self]))

    def is_another(self) -> bool:
        """Whether who asks is another: in another thread, or in a task that runs beside this one.

        Not another are a task that this one made meanwhile, and one that came after it had ended, as cells of a
        notebook do.
        """
        if self.thread != threading.get_ident():
            return True
        task, here = None if self._task is None else self._task(), running_task()
        return not (task is None or here is None or task is here or task.done() or self in (_BEGUN.get() or ()))


def running_task() -> "asyncio.Task[object] | None":
    """The task of asyncio that runs in this thread; None outside of one."""
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None
