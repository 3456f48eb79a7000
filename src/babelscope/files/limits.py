"""How much memory a file from elsewhere may ask for, and the variables of the environment that raise it."""

import os
from typing import NamedTuple

from babelscope.errors import PrerequisiteError

MIB = 1 << 20


class Limit(NamedTuple):
    """A number of MiB, which a variable of the environment sets."""

    setting: str
    default: int

    @property
    def bytes(self) -> int:
        """The limit that holds now; raises PrerequisiteError for a setting that is no number of MiB above zero."""
        written = os.environ.get(self.setting, str(self.default))
        if not (written.isdecimal() and written.isascii() and 0 < int(written) < 1 << 40):
            raise PrerequisiteError(
                f"{self.setting} is {written!r} in the environment; expected a number of MiB above zero; correct it"
            )
        return int(written) * MIB

    @property
    def advice(self) -> str:
        """What a message says after what came."""
        return (
            f"expected at most {self.bytes // MIB} MiB, as a small file can stand for more than the memory; if you "
            f"trust it, set {self.setting} higher in the environment"
        )


TEXT = Limit("BABELSCOPE_MAX_TEXT_MIB", 2048)
"""Memory that the lines of one file may take, once decompressed."""
LINE = Limit("BABELSCOPE_MAX_LINE_MIB", 16)
"""One line, which is one document."""
ARRAYS = Limit("BABELSCOPE_MAX_ARRAYS_MIB", 8192)
"""All arrays of one .npz file, once decompressed."""
TEMPLATE = Limit("BABELSCOPE_MAX_TEMPLATE_MIB", 1024)
"""What this process may grow by while a chat template runs."""
