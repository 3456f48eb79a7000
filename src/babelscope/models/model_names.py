"""Which names of a model can be ids of the hub, and which are paths; no library is loaded to tell."""

import os
import re

from babelscope.errors import PrerequisiteError


def check_model_name(name: str) -> None:
    """Raise PrerequisiteError for a path where nothing is; an id of the hub is only looked up later."""
    if name == "reference" or os.path.exists(os.path.expanduser(name)):
        return
    if name.lower().endswith(".gguf") or is_path(name):
        raise PrerequisiteError(
            f"model {name!r}: nothing is there; expected 'reference', a folder, a .gguf file or a hub id such as "
            "org/name; check the path"
        )


def is_path(name: str) -> bool:
    """Whether a name can be no id of the hub, which is one or two plain words of at most 96 letters."""
    return re.fullmatch(r"\w[\w.-]{0,95}(/\w[\w.-]{0,95})?", name) is None
