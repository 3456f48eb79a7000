"""Kinds of words on the command line, each with the check that its type carries; a check loads no library."""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import ClassVar, ParamSpec, TypeVar

from babelscope.cli.launched_ranks import launched_rank
from babelscope.corpus.corpus_names import may_be_hub_id
from babelscope.errors import ArtifactError, CorpusError, PrerequisiteError, ToolkitError, UsageError
from babelscope.files.folder_kinds import format_of, kind_of_folder
from babelscope.files.writing import is_taken, locked
from babelscope.sites import Site, check_at

P = ParamSpec("P")
R = TypeVar("R")


def check_writable(out: Path) -> None:
    """Raise PrerequisiteError for a path that the system would refuse, and for one whose parent is no open folder."""
    try:
        os.stat(out)
    except (FileNotFoundError, NotADirectoryError):
        pass  # as it should be: the parents are looked at below
    except (OSError, ValueError) as err:
        reason = getattr(err, "strerror", None) or str(err)
        raise PrerequisiteError(f"{str(out)[:80]!r}: {reason}; expected a path; choose another --out") from err
    near = next(path for path in (out.absolute(), *out.absolute().parents) if os.path.exists(path))
    if near != out.absolute() and not (near.is_dir() and os.access(near, os.W_OK | os.X_OK)):
        raise PrerequisiteError(f"{out}: nothing can be written in {near}; expected a folder; choose another --out")


def free(out: Path) -> Path:
    """The path, if nothing is there yet and something can be: found before the work, not after it."""
    check_writable(out)
    if is_taken(out):
        raise ArtifactError(f"{out}: already there; expected a new path; choose another --out or remove it")
    return out


def alone(verb: Callable[P, R]) -> Callable[P, R]:
    """The verb with its `out` kept for it while it runs: a second run with the same one is told at once."""

    @wraps(verb)
    def run(*args: P.args, **keywords: P.kwargs) -> R:
        out = keywords.get("out")
        if not isinstance(out, Path) or launched_rank().number:
            return verb(*args, **keywords)  # Of ranks that share the work the first writes, and keeps `out`.
        check_writable(out)
        with locked(out):
            return verb(*args, **keywords)

    return run


def checkpoint_of(out: Path, *, resume: bool) -> Path:
    """The folder beside `out` in which an interrupted run is kept.

    Raises PrerequisiteError, at once, if another run is using it, ArtifactError if an interrupted run is there and was
    not asked for.
    """
    checkpoint = out.with_name(f"{out.name}.checkpoint")
    check_writable(checkpoint)
    with locked(checkpoint):
        pass
    if checkpoint.exists() and not resume:
        raise ArtifactError(f"{checkpoint}: an interrupted run is there; expected none; use --resume or remove it")
    return checkpoint


@dataclass(frozen=True)
class SavedAs:
    """A folder in which this library saved one of some kinds."""

    kinds: tuple[str, ...]
    otherwise: str = "give the folder of one"
    """What to do with another artifact."""

    def check(self, flag: str, path: Path) -> None:
        """Raise ArtifactError for what is no such folder; what is in it is checked when it is loaded."""
        expected = " or ".join(filter(None, (", ".join(self.kinds[:-1]), self.kinds[-1])))
        if not os.path.isdir(path):
            raise ArtifactError(f"{flag} {path}: is no folder; expected a babelscope {expected}; check the path")
        kind = format_of(path)
        if not kind.startswith(tuple(f"babelscope.{kind}/" for kind in self.kinds)):
            raise ArtifactError(
                f"{flag} {path}: is {kind_of_folder(path) or 'no artifact'}; expected a babelscope {expected}; "
                f"{self.otherwise}"
            )


@dataclass(frozen=True)
class ByFunction:
    """A word that a function understands, or refuses with the one line that is printed."""

    understand: Callable[[str], object]
    is_word: bool = False
    """Whether it never names a file or folder, even where one of that name is."""

    def check(self, flag: str, word: str) -> None:
        """Raise what the function raises, with the flag before it, where it is one."""
        try:
            self.understand(word)
        except ToolkitError as err:
            raise type(err)(f"{flag}: {err}" if flag.startswith("--") else str(err)) from err


def site_or_name(word: str) -> None:
    """Understand a place in one layer, such as 5.resid_out, or its name alone, for all layers."""
    Site.parse(word) if "." in word else check_at(word)


def check_prompts_name(name: str) -> None:
    """Raise CorpusError for a path where no prompts can be; an id of the hub is only looked up later."""
    if not os.path.exists(name) and not may_be_hub_id(name):
        raise CorpusError(f"{name}: no such file or folder; expected prompts; correct the path")


def is_given(word: str) -> None:
    """Raise UsageError for an empty word."""
    if not word:
        raise UsageError("'' came; expected a word; leave the flag out")


@dataclass(frozen=True)
class WordOfForm:
    """A word of a form."""

    form: str
    described: str
    is_word: ClassVar[bool] = True
    """It never names a file or folder."""

    def check(self, flag: str, word: str) -> None:
        """Raise UsageError for a word of another form."""
        if re.fullmatch(self.form, word) is None:
            raise UsageError(f"{flag} {word!r} came; expected {self.described}; correct it")


class PlainFile:
    """A file that is there."""

    def check(self, flag: str, path: Path | str) -> None:
        """Raise CorpusError where there is none."""
        if not os.path.isfile(path):
            raise CorpusError(f"{flag} {path}: no such file; correct the path")


class WrittenFolder:
    """A folder that a command wrote; what is in it is checked when it is read."""

    def check(self, flag: str, path: Path) -> None:
        """Raise ArtifactError for what is no folder."""
        if not os.path.isdir(path):
            raise ArtifactError(f"{path}: no such folder, and so no results.json or other results; check the path")


class Writable:
    """A file that may be there already, and can be written."""

    def check(self, flag: str, path: Path) -> None:
        """Raise PrerequisiteError where the system would refuse it."""
        check_writable(path)
        if path.is_dir():
            raise PrerequisiteError(f"{flag} {path}: is a folder; expected a file; name one in it")


class NewPath:
    """A path where nothing is yet, unless a run is resumed, and that can be written."""

    def check(self, flag: str, path: Path) -> None:
        """Raise PrerequisiteError where the system would refuse it."""
        check_writable(path)
