"""Files that other libraries write: what they raise where the disk refuses, made the error that we know."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from babelscope.errors import PrerequisiteError
from babelscope.files.writing import REASONS, refusal, reported_errno


@contextmanager
def known_disk_errors(path: Path) -> Iterator[None]:
    """While open, an error with a number of the system in its text is an OSError of that number."""
    try:
        yield
    except (OSError, SafetensorError, PrerequisiteError):
        raise
    except Exception as err:  # The tokenizers library raises plain Exception.
        number = reported_errno(err)
        if number is None:
            raise
        raise OSError(number, os.strerror(number), str(path)) from err


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A temporary folder for files that only another library reads or writes; gone when the block ends.

    Raises PrerequisiteError, which names the variable TMPDIR, if the disk of temporary files refuses.
    """
    try:
        with tempfile.TemporaryDirectory() as name, known_disk_errors(Path(name)):
            yield Path(name)
    except (OSError, SafetensorError) as err:
        number = reported_errno(err)
        if number not in REASONS:
            raise
        line = str(refusal(Path(tempfile.gettempdir()), err))
        raise PrerequisiteError(f"{line}; TMPDIR names another place for temporary files") from err
