"""Mutation trials: damage an artifact, open it, and say what came."""

import random
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from artifact_damage import reseal
from robustness.kinds import KINDS, same
from robustness.mutators import MUTATORS

from babelscope.errors import ToolkitError

SECONDS = 20
"""A trial that takes longer is a hang."""
LONGEST = 1_500
"""Characters of a message."""


class Trial(NamedTuple):
    """One damaged artifact and what opening it gave."""

    kind: str
    mutator: str
    seed: int
    resealed: bool
    """Whether the hashes were made right again, as if the artifact were a stranger's."""
    outcome: str
    """refused, equal, changed, traceback, long or hang."""
    message: str


def good(trial: Trial) -> bool:
    """Refused in one line, or loaded as it was saved; under right hashes, anything that is possible may be loaded."""
    return trial.outcome in ("refused", "equal") or (trial.resealed and trial.outcome == "changed")


class Bench:
    """Artifacts of every kind, and the trials on them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.whole: dict[str, Any] = {}
        for name, kind in KINDS.items():
            for number in (0, 1):
                kind.save(folder / name / str(number), number)
            self.whole[name] = kind.load(folder / name / "0")

    def trial(self, name: str, mutator: str, seed: int, *, resealed: bool) -> Trial:
        """Damage a copy and open it."""
        copy = self.folder / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(self.folder / name / "0", copy)
        MUTATORS[mutator](copy, self.folder / name / "1", random.Random(f"{name} {mutator} {seed}"))
        if resealed:
            reseal(copy)
        outcome, message = self.open(name, copy)
        return Trial(name, mutator, seed, resealed, outcome, message)

    def open(self, name: str, copy: Path) -> tuple[str, str]:
        """What opening a folder gives, and the message of a refusal."""
        try:
            with at_most(SECONDS):
                loaded = KINDS[name].load(copy)
        except ToolkitError as err:
            text = str(err)
            return ("refused" if "\n" not in text and len(text) <= LONGEST else "long"), text
        except TimeoutError:
            return "hang", ""
        except Exception as err:  # noqa: BLE001 - what is looked for
            return "traceback", f"{type(err).__name__}: {err}"
        return ("equal" if same(loaded, self.whole[name]) or loaded == "nothing was saved yet" else "changed"), ""

    def all(self, seeds: range) -> Iterator[Trial]:
        """Every kind with every mutator, as it is and under right hashes."""
        for name, kind in KINDS.items():
            for mutator in MUTATORS:
                for seed in seeds:
                    for resealed in (False, True) if kind.hashes else (False,):
                        yield self.trial(name, mutator, seed, resealed=resealed)


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
    """A row for each kind of artifact and each of the two ways."""
    for name in KINDS:
        for resealed in (False, True):
            rows = [trial for trial in trials if (trial.kind, trial.resealed) == (name, resealed)]
            if rows:
                counts = {word: sum(trial.outcome == word for trial in rows) for word in OUTCOMES}
                yield {"check": "mutations", "kind": name, "hashes_made_right": resealed, "n": len(rows), **counts}
    yield {"check": "mutations", "kind": "all", "n": len(trials), "bad": sum(not good(trial) for trial in trials),
           "seconds": round(seconds, 1)}  # fmt: skip


OUTCOMES = ("refused", "equal", "changed", "traceback", "long", "hang")


def timed(folder: Path, seeds: range) -> tuple[list[Trial], float]:
    """All trials and how long they took."""
    bench, began = Bench(folder), time.perf_counter()
    return list(bench.all(seeds)), time.perf_counter() - began
