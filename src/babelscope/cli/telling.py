"""What a person reads: results that a machine gets as the same fields in JSON, and the lines of the log."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from babelscope.errors import one_line

Fields = Mapping[str, Any]
"""A verb's result, or a part of it, as it is printed for machines."""


class Told(dict[str, Any]):
    """A verb's result with the lines that are printed in its place where no `--json` was asked for."""

    def __init__(self, fields: dict[str, Any], lines: Sequence[str]) -> None:
        super().__init__(fields)
        self.lines = tuple(lines)


class OneLineFormatter:
    """A record of the log as one line that is safe to print, whatever names and texts out of files are in it."""

    def format(self, record: logging.LogRecord) -> str:
        """The message, and the exception where one was logged with it."""
        problem = record.exc_info[1] if record.exc_info else None
        return one_line(record.getMessage().rstrip() + ("" if problem is None else f" ({problem!r})"))


def print_log_lines(handler: logging.Handler) -> logging.Handler:
    """The same handler, which now prints each record as one line."""
    handler.setFormatter(OneLineFormatter())  # pyright: ignore[reportArgumentType]: only `format` is called
    return handler
