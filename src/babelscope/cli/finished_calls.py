"""What a resumable command was asked, kept beside what it wrote: `--resume` gives no result of another call."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from babelscope.errors import ArtifactError
from babelscope.files.strict_json import read_json
from babelscope.files.writing import added_to, discard

CALL = "call.json"
NOT_ASKED = frozenset({"out", "resume", "device", "dry_run"})
"""Arguments that decide nothing of what is written."""
BY_THEMSELVES = frozenset({"probe", "study"})
"""Commands whose folders keep a plan of their own, with hashes of what was read."""


def deciding_arguments(call: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that decide a command's result, as JSON; paths as they are from the root."""
    return {name: as_json_value(value) for name, value in call.items() if name not in NOT_ASKED}


def as_json_value(value: Any) -> Any:
    """A value of an argument as JSON; a plain text that names something on disk is a path, a language never is."""
    if isinstance(value, tuple | list):
        return [as_json_value(part) for part in value]
    if isinstance(value, Path) or (type(value) is str and os.path.exists(value)):
        return str(Path(value).absolute())
    return value if isinstance(value, bool | int | float | str | None) else str(value)


def kept_result(out: Path, name: str, checkpoint: Path) -> dict[str, Any] | None:
    """What a finished run wrote of its result into a file of `out`, or None where there is none.

    What an interrupted run kept is removed: a kill between the result and that removal leaves it behind.
    """
    if not (out / name).is_file():
        return None
    discard(checkpoint)
    fields = read_json(out / name, advice="remove the folder and repeat the command")
    return {"out": str(out), "resumed": "complete", **fields}


@contextmanager
def kept_call(verb: str, call: Mapping[str, Any]) -> Iterator[None]:
    """While the command runs: before it, compare with the call of what is in `out`; the folder that it makes keeps it.

    Commands that cannot be resumed, and those that keep a plan of their own, are left alone.
    Raises ArtifactError as `check_same_call`.
    """
    out = call.get("out")
    if "resume" not in call or out is None or verb in BY_THEMSELVES:
        yield
        return
    if call["resume"]:
        check_same_call(verb, call)
    record = {"command": verb, "settings": deciding_arguments(call)}
    with added_to(out, {CALL: json.dumps(record, ensure_ascii=False, indent=1) + "\n"}):
        yield


def check_same_call(verb: str, call: Mapping[str, Any]) -> None:
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
    settings, before = deciding_arguments(call), record["settings"]
    unlike = sorted(name for name in settings.keys() | before.keys() if settings.get(name) != before.get(name))
    if unlike:
        differences = ", ".join(f"{name} {before.get(name)!r} then and {settings.get(name)!r} now" for name in unlike)
        raise ArtifactError(
            f"{call['out']}: is complete, of another call: {differences}; repeat that command, or {advice}"
        )
