"""What the command line makes of an artifact: a call for each kind that a verb takes, and what it prints."""

import io
import json
import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from robustness.kill_cases import make_inputs

from babelscope.cli import main

Call = Callable[[Path, Path], Any]
"""From an artifact and the folder of inputs to what is printed."""


class Refused(Exception):
    """The one line on stderr of a call that ended with 1 or 2."""


def prepare(folder: Path) -> Path:
    """A model and texts for the calls."""
    folder.mkdir(parents=True)
    make_inputs(folder)
    return folder


@contextmanager
def silent_log() -> Iterator[None]:
    """While open nothing is logged; afterwards what was logged before is logged again."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


def call(*words: str | Path) -> dict[str, Any]:
    """The result of a command; raises Refused where it ends in an error."""
    out, err = io.StringIO(), io.StringIO()
    with silent_log(), redirect_stdout(out), redirect_stderr(err):
        code = main([*map(str, words), "--json"])
    if code:
        assert code in (1, 2) and json.loads(out.getvalue())["error"], (code, out.getvalue())
        raise Refused(err.getvalue().rstrip("\n"))
    return {key: value for key, value in json.loads(out.getvalue()).items() if key not in ("out", "resumed_tokens")}


def written(*words: str | Path, out: Path) -> dict[str, Any]:
    """The result of a command, and the JSON that it wrote; nothing is left."""
    shutil.rmtree(out, ignore_errors=True)
    try:
        told = call(*words, "--out", out)
        return {**told, **{path.name: json.loads(path.read_text()) for path in sorted(out.rglob("config.json"))}}
    finally:
        shutil.rmtree(out, ignore_errors=True)


def steered(artifact: Path, inputs: Path) -> Any:
    return call("steer", inputs / "model", artifact, "a cat", "--new-tokens", "2")


CALLS: dict[str, Call] = {
    "Observation": lambda artifact, inputs: written("merge", artifact, out=inputs / "merged"),
    "Direction": steered,
    "Delta": steered,
    "published mask": lambda artifact, inputs: written(
        "import-mask", artifact / "mask.pth", "--languages", "en", "fi", "--n-neurons", "9", out=inputs / "imported"
    ),
}
