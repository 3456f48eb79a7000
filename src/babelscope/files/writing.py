"""The one way in which the toolkit writes files and folders: whole or not at all, and synced before they have a name.

Everything is written under a temporary name in the same folder, synced, and renamed. The temporary file or folder is
locked while its writer lives, and a lock ends with its process: what is not locked was left by a killed run, and the
next write into the same folder removes it.
"""

import errno
import fcntl
import logging
import os
import re
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from safetensors import SafetensorError

from babelscope.errors import ArtifactError, PrerequisiteError
from babelscope.files.temporary_names import PARTIAL, UNDER_WAY, make_parent, names_open_file, temporary_beside

log = logging.getLogger(__name__)
REASONS = {
    errno.ENOSPC: ("the disk is full", "free space and retry"),
    errno.EDQUOT: ("the disk quota is used up", "free space and retry"),
    errno.EFBIG: ("the file would be larger than the system allows (ulimit -f)", "raise the limit and retry"),
    errno.EROFS: ("the file system is read-only", "choose another place"),
    errno.EACCES: ("there is no permission to write here", "choose another place, or change the permissions"),
    errno.EPERM: ("there is no permission to write here", "choose another place, or change the permissions"),
    errno.ENAMETOOLONG: ("the name is too long", "choose a shorter one"),
    errno.ENOTDIR: ("a folder of this path is a file", "choose another place"),
    errno.EISDIR: ("a folder has this name", "choose another name"),
    errno.EINVAL: ("the system does not allow this name", "choose another one"),
}
_ADDED: ContextVar[Mapping[Path, Mapping[str, str]]] = ContextVar("files added to new folders")
TAKEN = (errno.EEXIST, errno.ENOTEMPTY)


def refusal(path: Path, err: Exception) -> PrerequisiteError | ArtifactError:
    """The one line for a write that failed, with the true reason."""
    number = reported_errno(err)
    if number in TAKEN:
        return taken(path)
    reason, advice = REASONS.get(number or 0, (" ".join(str(err).split()), "mend that and retry"))
    return PrerequisiteError(f"{path}: could not be written, {reason}; nothing there was changed; {advice}")


def reported_errno(err: Exception) -> int | None:
    """The system's number of an error; libraries written in Rust have it in the text only."""
    number = re.search(r"\(os error (\d+)\)", str(err))
    return int(number[1]) if number else getattr(err, "errno", None)


def taken(path: Path) -> ArtifactError:
    """The error for a name that something has already, from before or from another run that was faster."""
    return ArtifactError(f"{path}: already there; expected a new name; choose another one or remove it")


def is_taken(path: Path) -> bool:
    """Whether something has the name of a new folder; an empty folder may be written into."""
    return path.is_symlink() or (path.exists() and not (path.is_dir() and not any(path.iterdir())))


def check_new(path: Path) -> None:
    """Raise ArtifactError where a new folder's name is taken: found before hours of work, not after them."""
    if is_taken(path):
        raise taken(path)


def write_text(path: str | Path, text: str, *, new: bool = False) -> Path:
    """Write a text file whole or not at all, in UTF-8; errors as in `whole_file`."""
    return write_bytes(path, text.encode("utf-8"), new=new)


def write_bytes(path: str | Path, content: bytes, *, new: bool = False) -> Path:
    """Write a file whole or not at all; errors as in `whole_file`."""
    with whole_file(path, new=new) as partial, partial.open("r+b") as file:
        file.write(content)
    return Path(path)


@contextmanager
def whole_file(path: str | Path, *, new: bool = False) -> Iterator[Path]:
    """An empty file beside `path` to write into, which takes the path's name when the block ends without an error.

    new: refuse a path that is taken; otherwise the file there is replaced, and stays as it was until then.
    Raises PrerequisiteError if the disk refuses or the path is a folder, ArtifactError if it is taken; then nothing is
    left.
    """
    path = checked(path)
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "is a folder", str(path))
        if new and path.exists():
            raise taken(path)
        with temporary_beside(path, folder=False) as partial:
            yield partial
            _sync(partial)
            if new:
                _link(partial, path)
            else:
                partial.replace(path)
            _sync(path.parent)
    except (OSError, SafetensorError) as err:
        raise refusal(path, err) from err


def _link(partial: Path, path: Path) -> None:
    """Give a file its name, and fail where another run was faster."""
    try:
        os.link(partial, path)
    except OSError as err:
        if err.errno in TAKEN:
            raise
        partial.rename(path)  # a file system without links, such as that of a USB stick


@contextmanager
def added_to(path: str | Path, files: Mapping[str, str]) -> Iterator[None]:
    """While open, a `new_folder` of this path gets these texts as files too, by name: there with the rest, or not."""
    token = _ADDED.set({**_ADDED.get({}), checked(path): files})
    try:
        yield
    finally:
        _ADDED.reset(token)


@contextmanager
def new_folder(path: str | Path) -> Iterator[Path]:
    """A folder beside `path` to write files into, which takes the path's name when all of them are on the disk.

    Files get the permissions that the user's umask gives, whichever library wrote them. Where `path` is such a folder
    itself, as in `with new_folder(out) as folder: neurons.save(folder)`, it is written into.
    Raises ArtifactError if the path is taken, PrerequisiteError if the disk refuses; then nothing is left behind.
    """
    path = checked(path)
    if path in UNDER_WAY:
        yield path
        return
    try:
        check_new(path)
        with temporary_beside(path, folder=True) as partial:
            yield partial
            for name, text in _ADDED.get({}).get(path, {}).items():
                (partial / name).write_text(text, encoding="utf-8")
            mode = stat.S_IMODE(partial.stat().st_mode)
            for inner in sorted(partial.rglob("*"), reverse=True):
                if not inner.is_symlink():
                    inner.chmod(mode if inner.is_dir() else mode & 0o666)
                    _sync(inner)
            _sync(partial)
            partial.rename(path)
            _sync(path.parent)
    except (OSError, SafetensorError) as err:
        raise refusal(path, err) from err
    except (PrerequisiteError, ArtifactError) as err:
        # What was written inside names its temporary place; the reader knows the final one.
        if isinstance(err.__cause__, OSError | SafetensorError) and PARTIAL in str(err):
            raise refusal(path, err.__cause__) from err.__cause__
        raise


def append_lines(path: str | Path, lines: Iterable[str]) -> None:
    """Add lines to a file, each whole; half a line that a killed run left at its end is cut off first.

    Raises PrerequisiteError if the disk refuses; the file is then as it was.
    """
    path = checked(path)
    content = "".join(f"{line}\n" for line in lines).encode("utf-8")
    try:
        make_parent(path)
        with path.open("ab+") as file:
            end = _end_of_lines(path)
            file.truncate(end)
            try:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                os.truncate(path, end)
                raise
    except OSError as err:
        raise refusal(path, err) from err


def _end_of_lines(path: Path) -> int:
    """Bytes of a file up to the end of its last whole line."""
    size = path.stat().st_size
    with path.open("rb") as file:
        for end in range(size, 0, -65_536):
            start = max(0, end - 65_536)
            file.seek(start)
            place = file.read(end - start).rfind(b"\n")
            if place >= 0:
                return start + place + 1
    return 0


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """While open no other run may use the folder, which is made if need be, and removed if it is empty at the end.

    The lock ends with its process, so that a crash leaves none behind. Raises PrerequisiteError where another run has
    it, at once. On a file system without locks a line is logged.
    """
    folder = checked(folder)
    try:
        descriptor = _open_and_lock(folder)
    except OSError as err:
        raise refusal(folder, err) from err
    try:
        yield
    finally:
        try:
            folder.rmdir()
        except OSError:
            log.debug("%s stays, with what is in it", folder)
        os.close(descriptor)


def _open_and_lock(folder: Path) -> int:
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:  # removed between the two lines, by a run that ended
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise PrerequisiteError(
                f"{folder}: another run is using it; expected one at a time; wait for it, or choose another --out"
            ) from None
        except OSError as err:
            log.warning("%s: no lock is to be had (%s); let no other run use it", folder, err.strerror)
        if names_open_file(folder, descriptor):
            return descriptor
        os.close(descriptor)


def discard(folder: Path) -> None:
    """Remove a folder that is no longer needed, unless another run is using it; raises PrerequisiteError if refused."""
    if not folder.is_dir():
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder)
        finally:
            os.close(descriptor)
    except BlockingIOError:
        log.warning("%s: another run is using it; it stays", folder)
    except OSError as err:
        raise PrerequisiteError(f"{folder}: could not be removed ({err.strerror}); remove it by hand") from err


def checked(path: str | Path) -> Path:
    """The path, if it can be one."""
    if "\0" in str(path):
        raise PrerequisiteError(f"{str(path)!r}: a NUL character came in a path; expected none; correct it")
    return Path(path)


def _sync(path: Path) -> None:
    """Wait until the bytes of a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as err:
        if err.errno != errno.EINVAL:  # folders on some network file systems
            raise
    finally:
        os.close(descriptor)
