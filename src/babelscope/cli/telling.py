"""Results that a person reads as text, and a machine as the same fields in JSON."""

from collections.abc import Sequence
from typing import Any


class Told(dict[str, Any]):
    """A verb's result with the lines that are printed in its place where no `--json` was asked for."""

    def __init__(self, fields: dict[str, Any], lines: Sequence[str]) -> None:
        super().__init__(fields)
        self.lines = tuple(lines)
