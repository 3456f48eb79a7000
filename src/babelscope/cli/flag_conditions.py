"""Flags that only some calls use: one that is given where it is not used is refused, not passed over."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from babelscope.errors import UsageError
from babelscope.files.folder_kinds import format_of

FlagValues = Mapping[str, Any]
"""The arguments of a call by name, as they were understood."""


@dataclass(frozen=True)
class UsedWith:
    """What a call must have for a flag to be used: written beside the flag's type."""

    words: str
    """When the flag is used, such as `with --sweep`, for the message."""
    holds: Callable[[FlagValues], bool]

    def check(self, flag: str, call: FlagValues) -> None:
        """Raise UsageError where the call does not use the flag."""
        if not self.holds(call):
            raise UsageError(f"{flag} came, which is used only {self.words}; change the call, or leave the flag out")


def saved_as(argument: str, *kinds: str) -> UsedWith:
    """Used where the folder that an argument names holds one of these kinds."""
    formats = tuple(f"babelscope.{kind}/" for kind in kinds)
    return UsedWith(f"with a {' or '.join(kinds)}", lambda call: format_of(call[argument]).startswith(formats))
