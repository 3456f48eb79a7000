"""The streams and the folder that a process was started with, where something is wrong with them."""

import os
import sys

from babelscope.errors import UsageError


def open_closed_streams() -> None:
    """Open to nothing what the shell closed, as `>&-` does.

    Otherwise the next file that is opened gets the number of the closed stream, and what is printed goes into it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free, which is this one
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", encoding="utf-8", closefd=False)


def output_error() -> OSError | None:
    """What keeps the output from being written, if anything does; what is left of it then goes nowhere."""
    try:
        sys.stdout.write("\n")
        sys.stdout.flush()  # without a buffer nothing is left that a flush could fail on
    except OSError as err:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return err
    return None


def check_folder() -> None:
    """Raise UsageError where the current folder is no longer there, so that a relative path names nothing."""
    try:
        os.getcwd()
    except OSError as err:
        raise UsageError(
            f"the current folder: {err.strerror}; expected one that paths can begin at; cd to one that is there"
        ) from err
