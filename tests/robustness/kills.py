"""Verbs that are killed before a file event, run on a full disk, or run twice at once; and what is there afterwards."""

import json
import shutil
import signal
from pathlib import Path
from typing import Any, NamedTuple

from robustness.forked_runs import End, Shot, run, start
from robustness.kill_cases import verbs

TIMES = ("seconds", "processor_seconds", "peak_mib", "environment", "out")
"""What differs from run to run in the JSON of results: times, and where they were written."""
PAGES = (".html", ".js")


def contents(folder: Path) -> dict[str, Any]:
    """All files of a folder by name; JSON without times, pages left out, the paths of the run left out."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or path.suffix in PAGES:
            continue
        content: Any = path.read_bytes()
        if path.name in ("results.json", "summary.json"):
            tree = json.loads(content)
            content = {key: value for key, value in tree.items() if key not in TIMES}
        found[str(path.relative_to(folder))] = content
    return found


class Killed(NamedTuple):
    """One run that was killed and repeated."""

    verb: str
    event: int
    outcome: str
    """equal, differs, refused, traceback, or left: something stayed beside the result."""
    message: str


def kill_and_repeat(folder: Path, name: str, event: int, whole: dict[str, Any]) -> Killed:
    """Kill a verb before a file event, repeat it, and compare with what an uninterrupted run wrote."""
    return _shoot_and_repeat(folder, name, Shot(event), whole)


def interrupt_and_repeat(folder: Path, name: str, event: int, whole: dict[str, Any]) -> Killed:
    """The same by Ctrl-C."""
    return _shoot_and_repeat(folder, name, Shot(event, signal.SIGINT), whole)


def terminate_and_repeat(folder: Path, name: str, event: int, whole: dict[str, Any]) -> Killed:
    """The same by SIGTERM."""
    return _shoot_and_repeat(folder, name, Shot(event, signal.SIGTERM), whole)


def _shoot_and_repeat(folder: Path, name: str, shot: Shot, whole: dict[str, Any]) -> Killed:
    out, words = _place(folder, f"{name}-{shot.number}-{shot.event}", name)
    first = run(words, out, shot=shot)
    end = run(_again(folder, name, words), out)
    torn = "traceback" if first.torn else judge(out, end, whole)
    shutil.rmtree(out.parent)
    return Killed(name, shot.event, torn, end.message)


def judge(out: Path, end: End, whole: dict[str, Any]) -> str:
    """What came of a run, beside what an uninterrupted one wrote."""
    if end.torn:
        return "traceback"
    # A run that was killed after its result had its name is told that it is there.
    if end.code and not ("already there" in end.message and out.is_dir()):
        return "refused"
    if contents(out) != whole:
        return "differs"
    return "equal" if [path.name for path in out.parent.iterdir()] == ["out"] else "left"


def uninterrupted(folder: Path, name: str) -> tuple[dict[str, Any], int]:
    """What a verb writes, and how many file events it has."""
    out, words = _place(folder, f"{name}-whole", name)
    end = run(words, out)
    assert end.code == 0, end
    return contents(out), end.events


def on_a_full_disk(folder: Path, name: str, size: int, whole: dict[str, Any]) -> Killed:
    """Run a verb where no file may be larger than a size, then with room."""
    out, words = _place(folder, f"{name}-full-{size}", name)
    first = run(words, out, file_size=size)
    if first.torn:
        return Killed(name, size, "traceback", first.message)
    if first.code == 0:
        return Killed(name, size, judge(out, first, whole), first.message)
    end = run(_again(folder, name, words), out)
    return Killed(name, size, judge(out, end, whole), f"{first.message} / {end.message}")


def two_at_once(folder: Path, name: str, number: int, whole: dict[str, Any]) -> Killed:
    """Two runs of one verb with one --out: one ends well, the other with one line, and the result is whole."""
    out, words = _place(folder, f"{name}-two-{number}", name)
    ends = [started.end() for started in (start(words, out), start(words, out))]
    won, lost = ([end for end in ends if bool(end.code) is failed] for failed in (False, True))
    if any(end.torn for end in ends):
        return Killed(name, number, "traceback", str(ends))
    if len(won) != 1:
        return Killed(name, number, "differs", str(ends))
    return Killed(name, number, judge(out, won[0], whole), lost[0].message)


def _place(folder: Path, title: str, name: str) -> tuple[Path, tuple[str, ...]]:
    """A new folder for one trial: its --out, and the command with it."""
    out = folder / title / "out"
    out.parent.mkdir()
    return out, (*verbs(folder)[name].words, "--out", str(out))


def _again(folder: Path, name: str, words: tuple[str, ...]) -> tuple[str, ...]:
    return (*words, "--resume") if verbs(folder)[name].resumes else words
