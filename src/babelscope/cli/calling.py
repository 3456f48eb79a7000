"""From a verb's words to the call of its function, whose signature gives the flags."""

import logging
from functools import wraps
from importlib import import_module
from typing import Any

import tyro

from babelscope.cli.arguments import Result
from babelscope.cli.table import VERBS
from babelscope.cli.telling import print_log_lines


def call_verb(verb: str, words: list[str]) -> Result:
    """Parse a verb's arguments from the signature of its function, and call it; only its own module is imported.

    transformers, whose progress bars are hidden, is loaded after the flags are understood and where it may be needed.
    """
    entry = VERBS[verb]
    function = getattr(import_module(f"babelscope.cli.{entry.module}"), entry.function)

    @wraps(function)
    def quiet(*args: Any, **flags: Any) -> Result:
        if entry.may_open_model:
            from babelscope.upstream.tokenizers import hide_progress

            hide_progress()
            for handler in logging.getLogger("transformers").handlers:
                print_log_lines(handler)
        return function(*args, **flags)

    return tyro.cli(quiet, args=words, prog=f"babelscope {verb}")
