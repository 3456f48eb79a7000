"""From a verb's words to the call of its function, whose signature gives the flags."""

from importlib import import_module

import tyro

from babelscope.cli.arguments import Result
from babelscope.cli.table import VERBS
from babelscope.upstream.tokenizers import hide_progress


def call_verb(verb: str, words: list[str]) -> Result:
    """Parse a verb's arguments from the signature of its function, and call it; only its own module is imported."""
    hide_progress()
    entry = VERBS[verb]
    function = getattr(import_module(f"babelscope.cli.{entry.module}"), entry.function)
    return tyro.cli(function, args=words, prog=f"babelscope {verb}")
