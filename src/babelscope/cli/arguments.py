"""What several verbs share: their result, a free path, and a quiet stop."""

import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from babelscope.errors import ArtifactError

Result = Mapping[str, Any]


def free(out: Path) -> Path:
    """The path, if nothing is there yet."""
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise ArtifactError(f"{out}: already there; expected a new path; choose another --out or remove it")
    return out


@contextmanager
def stop_on_interrupt() -> Iterator[Callable[[], bool]]:
    """Ctrl-C and SIGTERM end the pass between two batches, with its checkpoint written."""
    asked = []
    earlier = {name: signal.signal(name, lambda *_: asked.append(1)) for name in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for name, handler in earlier.items():
            signal.signal(name, handler)
