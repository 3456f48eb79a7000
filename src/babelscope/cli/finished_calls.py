"""What a resumable command was asked, kept beside what it wrote: `--resume` gives no result of another call."""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from babelscope.cli.arguments import Result
from babelscope.errors import ArtifactError
from babelscope.files.strict_json import read_json
from babelscope.files.writing import added_to, discard

CALL = "call.json"
ANEW = "remove the folder and repeat the command"
NOT_ASKED = frozenset({"out", "resume", "device", "dry_run"})
"""Arguments that decide nothing of what is written."""
BY_THEMSELVES = frozenset({"probe", "study"})
"""Commands whose folders keep a plan of their own, with hashes of what was read."""


def deciding_arguments(call: Mapping[str, Any], words: Set[str] = frozenset()) -> dict[str, Any]:
    """The arguments that decide a command's result, as JSON; paths as they are from the root.

    words: arguments that are never a path, such as a language, whatever lies on disk under the same name.
    """
    return {name: as_json_value(value, name in words) for name, value in call.items() if name not in NOT_ASKED}


def as_json_value(value: Any, is_word: bool = False) -> Any:
    """A value of an argument as JSON; a text that names something on disk is a path, if it is no word."""
    if isinstance(value, tuple | list):
        return [as_json_value(part, is_word) for part in value]
    if isinstance(value, Path) or (type(value) is str and not is_word and os.path.exists(value)):
        return str(Path(value).absolute())
    return value if isinstance(value, bool | int | float | str | None) else str(value)


def kept_result(
    out: Path, name: str, checkpoint: Path, tell: Callable[[dict[str, Any]], Result] = dict
) -> Result | None:
    """What a finished run wrote of its result into a file of `out`, told again, or None where there is none.

    What an interrupted run kept is removed: a kill between the result and that removal leaves it behind.
    Raises ArtifactError for a file that lacks what the command writes.
    """
    if not (out / name).is_file():
        return None
    discard(checkpoint)
    fields = read_json(out / name, advice=ANEW)
    try:
        return tell({"out": str(out), "resumed": "complete", **fields})
    except (KeyError, TypeError, ValueError, AttributeError) as err:
        raise ArtifactError(
            f"{out / name}: is not as it was written ({err!r}); expected the result of this command; {ANEW}"
        ) from err


@contextmanager
def kept_call(verb: str, call: Mapping[str, Any], words: Set[str] = frozenset()) -> Iterator[None]:
    """While the command runs: before it, compare with the call of what is in `out`; the folder that it makes keeps it.

    Commands that cannot be resumed, and those that keep a plan of their own, are left alone. words: as above.
    Raises ArtifactError as `check_same_call`.
    """
    out = call.get("out")
    if "resume" not in call or out is None or verb in BY_THEMSELVES:
        yield
        return
    if call["resume"]:
        check_same_call(verb, call, words)
    record = {"command": verb, "settings": deciding_arguments(call, words)}
    with added_to(out, {CALL: json.dumps(record, ensure_ascii=False, indent=1) + "\n"}):
        yield


def check_same_call(verb: str, call: Mapping[str, Any], words: Set[str]) -> None:
    """Raise ArtifactError where `out` holds what a command with other settings wrote.

    A folder that says nothing of its call, as those of earlier releases, is left to the command.
    """
    file = call["out"] / CALL
    if not file.is_file():
        return
    advice = "give another --out, or remove the folder"
    record = read_json(file, advice=advice)
    if not isinstance(record, dict) or not isinstance(record.get("settings"), dict):
        raise ArtifactError(f"{file}: does not say what was asked; expected a command and its settings; {advice}")
    if record.get("command") != verb:
        raise ArtifactError(f"{call['out']}: is of `babelscope {record.get('command')}`; expected {verb}; {advice}")
    settings, before = deciding_arguments(call, words), record["settings"]
    unlike = sorted(name for name in settings.keys() | before.keys() if settings.get(name) != before.get(name))
    if unlike:
        differences = ", ".join(f"{name} {before.get(name)!r} then and {settings.get(name)!r} now" for name in unlike)
        raise ArtifactError(
            f"{call['out']}: is complete, of another call: {differences}; repeat that command, or {advice}"
        )
