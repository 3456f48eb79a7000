"""Temporary files and folders, beside what is being written and locked while their writer lives."""

import errno
import fcntl
import logging
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

log = logging.getLogger(__name__)
PARTIAL = ".babelscope-partial-"
"""Begins the temporary name; the rest does not depend on the final name, which may be as long as the system allows."""
UNDER_WAY: set[Path] = set()
"""Temporary names that this process is writing under."""


def names_open_file(path: Path, descriptor: int) -> bool:
    """Whether the path still names what the descriptor has open."""
    try:
        named_file, open_file = path.stat(), os.fstat(descriptor)
    except FileNotFoundError:
        return False
    return (named_file.st_dev, named_file.st_ino) == (open_file.st_dev, open_file.st_ino)


@contextmanager
def temporary_beside(path: Path, *, folder: bool) -> Iterator[Path]:
    """A new temporary file or folder beside the path, locked; removed at the end if it still has its name."""
    make_parent(path)
    _remove_leftovers(path.parent)
    partial, descriptor = _make_partial(path.parent, folder=folder)
    UNDER_WAY.add(partial)
    try:
        yield partial
    finally:
        UNDER_WAY.discard(partial)
        _remove(partial)
        os.close(descriptor)


def make_parent(path: Path) -> None:
    """The folder of a path, made if need be; raises NotADirectoryError where a file is in the way."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError as err:
        raise NotADirectoryError(errno.ENOTDIR, "is a file", str(err.filename)) from err


def _make_partial(parent: Path, *, folder: bool) -> tuple[Path, int]:
    while True:
        partial = parent / f"{PARTIAL}{secrets.token_hex(8)}"
        try:
            if folder:
                partial.mkdir()
                descriptor = os.open(partial, os.O_RDONLY | os.O_DIRECTORY)
            else:
                descriptor = os.open(partial, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)
        except FileNotFoundError:  # another run took it for a leftover before it was locked
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # the same, a moment later
            os.close(descriptor)
            continue
        except OSError as err:
            log.debug("%s: no lock is to be had (%s)", partial, err.strerror)
        if names_open_file(partial, descriptor):
            return partial, descriptor
        os.close(descriptor)


def _remove_leftovers(parent: Path) -> None:
    """Remove what killed runs were writing in a folder: temporary names that no living run has locked."""
    for leftover in parent.glob(f"{PARTIAL}*"):
        try:
            descriptor = os.open(leftover, os.O_RDONLY | os.O_NOFOLLOW)
        except OSError:  # gone by now, or another user's
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove(leftover)
        except OSError as err:
            log.debug("%s stays (%s)", leftover, err.strerror)
        finally:
            os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
