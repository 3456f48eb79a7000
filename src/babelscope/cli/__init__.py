"""The command line: a static table here, each verb in a file of its own, imported only when it runs."""

import json
import logging
import sys
from collections.abc import Sequence
from typing import Any

from babelscope.cli.table import PROGRAM_HELP, VERBS
from babelscope.errors import ToolkitError

DONE, FAILED, MISUSE, INTERRUPTED = 0, 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; returns 0 done, 1 failed, 2 misuse, 130 interrupted (resumable)."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help"):
        print(PROGRAM_HELP)
        return DONE if words else MISUSE
    if words[0] == "--version":
        from importlib.metadata import version

        print(version("babelscope"))
        return DONE
    verb = words[0]
    if verb not in VERBS:
        print(f"babelscope: {verb!r} is no command; expected one of {', '.join(VERBS)}", file=sys.stderr)
        return MISUSE
    as_json = "--json" in words
    words = [word for word in words[1:] if word != "--json"]
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(message)s")
    logging.captureWarnings(True)
    return run_verb(verb, words, as_json)


def run_verb(verb: str, words: list[str], as_json: bool) -> int:
    """Call a verb, print what it returns, and turn errors into exit codes."""
    try:
        from babelscope.cli.arguments import FailedResult
        from babelscope.cli.calling import call_verb
        from babelscope.cli.telling import Told
        from babelscope.runs import plain

        returned = call_verb(verb, words)
        result = plain(returned)
    except ToolkitError as err:
        print(f"babelscope {verb}: {err}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print(
            f"babelscope {verb}: interrupted; --resume goes on where it stopped, where the verb has it", file=sys.stderr
        )
        return INTERRUPTED
    if as_json:
        print(json.dumps(result, ensure_ascii=False))
    elif isinstance(returned, Told):
        print("\n".join(returned.lines))
    else:
        for key, value in result.items():
            print("\n".join(shown(key, value)))
    return FAILED if isinstance(returned, FailedResult) else DONE


def shown(key: str, value: Any) -> list[str]:
    """A result for a person: one line, or a line for each row of a table."""
    rows = list(value.values()) if isinstance(value, dict) else value
    if isinstance(rows, list) and rows and all(isinstance(row, dict | list) for row in rows):
        names = [f"{name}: " for name in value] if isinstance(value, dict) else [""] * len(rows)
        lines = [f"  {name}{json.dumps(row, ensure_ascii=False)}" for name, row in zip(names, rows, strict=True)]
        return [f"{key}:", *lines]
    return [f"{key}: {value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}"]
