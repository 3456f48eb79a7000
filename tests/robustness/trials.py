"""Mutation trials: damage an artifact, open it, and say what came."""

import random
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from artifact_damage import reseal
from robustness.calls import CALLS, Refused, prepare
from robustness.kinds import KINDS, same
from robustness.mutators import MUTATORS
from robustness.odd_mutators import ODD

from babelscope.errors import ToolkitError

ALL = {**MUTATORS, **ODD}
SECONDS = 20
"""A trial that takes longer is a hang."""
LONGEST = 1_500
"""Characters of a message."""
SPARE_KIB = 32 << 10
"""Of memory, beside twice the files': what Python and torch take for themselves."""


class Trial(NamedTuple):
    """One damaged artifact and what opening it gave."""

    kind: str
    mutator: str
    seed: int
    resealed: bool
    """Whether the hashes were made right again, as if the artifact were a stranger's."""
    outcome: str
    """refused, equal, changed, traceback, long, hang or memory."""
    message: str
    entry: str = "library"
    """Or the command line."""


def good(trial: Trial) -> bool:
    """Refused in one line, or loaded as it was saved; under right hashes, anything that is possible may be loaded."""
    return trial.outcome in ("refused", "equal") or (trial.resealed and trial.outcome == "changed")


class Bench:
    """Artifacts of every kind, and the trials on them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.whole: dict[str, Any] = {}
        self.told: dict[str, Any] = {}
        self.inputs: Path | None = None
        for name, kind in KINDS.items():
            for number in (0, 1):
                kind.save(folder / name / str(number), number)
            self.whole[name] = kind.load(folder / name / "0")

    def damaged(self, name: str, mutator: str, seed: int, *, resealed: bool) -> Path:
        """A damaged copy."""
        copy = self.folder / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(self.folder / name / "0", copy)
        ALL[mutator](copy, self.folder / name / "1", random.Random(f"{name} {mutator} {seed}"))
        return reseal(copy) if resealed else copy

    def trial(self, name: str, mutator: str, seed: int, *, resealed: bool) -> Trial:
        """Damage a copy and open it in the library."""
        copy = self.damaged(name, mutator, seed, resealed=resealed)

        def load() -> str:
            loaded = KINDS[name].load(copy)
            return "equal" if same(loaded, self.whole[name]) or loaded == "nothing was saved yet" else "changed"

        return Trial(name, mutator, seed, resealed, *outcome(load, copy))

    def call(self, name: str, mutator: str, seed: int, *, resealed: bool) -> Trial:
        """Damage a copy and give it to the command line."""
        if self.inputs is None:
            self.inputs = prepare(self.folder / "inputs")
        if name not in self.told:
            self.told[name] = CALLS[name](self.folder / name / "0", self.inputs)
        copy, inputs = self.damaged(name, mutator, seed, resealed=resealed), self.inputs

        def ask() -> str:
            return "equal" if CALLS[name](copy, inputs) == self.told[name] else "changed"

        return Trial(name, mutator, seed, resealed, *outcome(ask, copy), entry="command line")

    def all(self, name: str, seeds: range, *, calls: range) -> Iterator[Trial]:
        """Every mutator on one kind, as it is and under right hashes; calls: seeds of the command line's trials."""
        ways = (False, True) if KINDS[name].hashes else (False,)
        for mutator, resealed in product(ALL, ways):
            for seed in seeds:
                yield self.trial(name, mutator, seed, resealed=resealed)
            for seed in calls if name in CALLS else ():
                yield self.call(name, mutator, seed, resealed=resealed)


def outcome(attempt: Callable[[], str], path: Path) -> tuple[str, str]:
    """What an attempt on some files gives, and the message of a refusal."""
    size = sum(file.lstat().st_size for file in path.rglob("*") if not file.is_dir())
    before = memory_kib(reset=True)
    try:
        with at_most(SECONDS):
            found, text = attempt(), ""
    except (ToolkitError, Refused) as err:
        text = str(err)
        found = "refused" if "\n" not in text and len(text) <= LONGEST else "long"
    except TimeoutError:
        return "hang", ""
    except Exception as err:  # noqa: BLE001 - what is looked for
        return "traceback", f"{type(err).__name__}: {err}"
    more = memory_kib() - before
    if more > 2 * size // 1024 + SPARE_KIB:
        return "memory", f"{more} KiB for {size} bytes; {text}"
    return found, text


def memory_kib(*, reset: bool = False) -> int:
    """The most memory of this process since the last reset, in KiB; after a reset what it has now."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])


@contextmanager
def at_most(seconds: int) -> Iterator[None]:
    """Raise TimeoutError when the block takes longer."""

    def end(*_: object) -> None:
        raise TimeoutError

    earlier = signal.signal(signal.SIGALRM, end)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, earlier)


def summary(trials: list[Trial], seconds: float) -> Iterator[dict[str, Any]]:
    """A row for each kind of artifact, each of the two ways, and each entry; and one for all."""
    for key in dict.fromkeys((trial.kind, trial.entry, trial.resealed) for trial in trials):
        rows = [trial for trial in trials if (trial.kind, trial.entry, trial.resealed) == key]
        counts = {word: sum(trial.outcome == word for trial in rows) for word in OUTCOMES}
        kind, entry, resealed = key
        yield {
            "check": "mutations",
            "kind": kind,
            "entry": entry,
            "hashes_made_right": resealed,
            "n": len(rows),
            **counts,
        }
    yield {
        "check": "mutations",
        "kind": "all",
        "n": len(trials),
        "bad": sum(not good(trial) for trial in trials),
        "mutators": len(ALL),
        "seconds": round(seconds, 1),
    }


OUTCOMES = ("refused", "equal", "changed", "traceback", "long", "hang", "memory")
