"""A command in a forked process, which may get a signal before a file event or a disk on which no file may grow.

Each run is a forked process: the libraries are loaded once.
"""

import contextlib
import io
import logging
import multiprocessing
import os
import resource
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

FORK = multiprocessing.get_context("fork")
CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.truncate", "shutil.rmtree")


class End(NamedTuple):
    """How a run ended."""

    code: int
    """Exit code; -9 for a killed one."""
    message: str
    """Last line on stderr."""
    events: int
    """File events under the folder that were seen."""
    torn: bool
    """Whether there was a traceback."""


class Shot(NamedTuple):
    """A signal that a run gets."""

    event: int
    """Before which file event; 0 never."""
    number: int = signal.SIGKILL


NO_SHOT = Shot(0)


class Started(NamedTuple):
    """A run under way."""

    process: Any
    pipe: Any
    shot: Shot

    def end(self) -> End:
        """Wait for it."""
        try:
            code, err, events = self.pipe.recv()
        except EOFError:
            code, err, events = -signal.SIGKILL, "", self.shot.event
        self.process.join()
        lines = err.strip().splitlines()
        return End(code, lines[-1] if code and lines else "", events, "Traceback" in err)


def start(words: Sequence[str], under: Path, *, shot: Shot = NO_SHOT, file_size: int = 0) -> Started:
    """Run a verb in a process of its own.

    under: file events count at this path, beside it and in it. shot: a signal before one of them. file_size: bytes a
    file may have at most, as on a full disk.
    """
    ours, theirs = FORK.Pipe(duplex=False)
    process = FORK.Process(target=_child, args=(theirs, tuple(words), under.parent, under.name, shot, file_size))
    process.start()
    theirs.close()
    return Started(process, ours, shot)


def run(words: Sequence[str], under: Path, *, shot: Shot = NO_SHOT, file_size: int = 0) -> End:
    """`start`, and wait for the end."""
    return start(words, under, shot=shot, file_size=file_size).end()


def _child(pipe: Any, words: tuple[str, ...], parent: Path, name: str, shot: Shot, file_size: int) -> None:
    import babelscope.features.passes as passes
    import babelscope.files.work_log as work_log
    import babelscope.recording.observe_pass as observing
    import babelscope.subnetworks.running as running
    from babelscope.cli import main

    torch.set_num_threads(1)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    logging.disable(logging.CRITICAL)
    # A checkpoint after every batch, step and piece of work, in the place of one in 20 or 30 seconds.
    walk, train = observing.walk, running.Training.run
    observing.walk = passes.walk = lambda *text, **given: walk(*text, **{**given, "checkpoint_seconds": 0.0})
    running.Training.run = lambda self, **given: train(self, **{**given, "checkpoint_seconds": 0.0})
    work_log.SECONDS = 0.0
    seen = _count_events(parent, name, shot)
    if file_size:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))
    out, err = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main([*words, "--json"])
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:  # noqa: BLE001 - what is looked for
        code, _ = 1, err.write(traceback.format_exc())
    pipe.send((code, err.getvalue(), len(seen)))
    pipe.close()
    os._exit(0)


def _count_events(parent: Path, name: str, shot: Shot) -> list[int]:
    """Count file events that change something at or beside a path, and send the process a signal before one of them."""
    seen: list[int] = []
    place = str(parent)

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event == "open":
            writes = args[2] is not None and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if not writes:
                return
        elif event not in CHANGES:
            return
        path = os.fsdecode(args[0]) if isinstance(args[0], str | bytes | os.PathLike) else ""
        # A name alone is one inside a folder that is being removed.
        ours = "/" not in path or (path.startswith(place) and (".babelscope-partial" in path or name in path))
        if ours:
            seen.append(1)
            if len(seen) == shot.event:
                os.kill(os.getpid(), shot.number)

    sys.addaudithook(hook)
    return seen
