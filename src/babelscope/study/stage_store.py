"""What each stage of a run found, on disk as soon as it is done: an interrupted run goes on inside its stage."""

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from babelscope.errors import ArtifactError
from babelscope.files.state_folder import hash_json, read_sealed, write_sealed
from babelscope.files.strict_json import nan_as_null, read_json
from babelscope.files.temporary_names import PARTIAL
from babelscope.files.work_log import WorkLog, work_log
from babelscope.files.writing import discard, write_text
from babelscope.runs import duration, peak_mib

log = logging.getLogger(__name__)
PLAN, STAGES = "plan.json", "stages"


class StageStore:
    """The stages of one run that are done, with their seconds and peak memory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seconds: dict[str, float] = {}
        self.peak_mib: dict[str, int] = {}
        self.expected: dict[str, float] = {}
        """Seconds that stages were said to take."""
        self.fingerprint = ""
        """Hash of the plan, once it is checked."""
        self.resumed = False
        """Whether an earlier run was asked the same, once the plan is checked."""

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Time one stage."""
        about = f", about {duration(self.expected[name])}" if name in self.expected else ""
        log.info("%s …%s", name, about)
        began = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - began, 2)
        self.peak_mib[name] = peak_mib()
        left = sum(seconds for stage, seconds in self.expected.items() if stage not in self.seconds)
        if name in self.expected and left:
            log.info("all further stages: about %s", duration(left))
        log.info("%s: %.1f s, peak %d MiB", name, self.seconds[name], self.peak_mib[name])

    def stage(self, name: str, find: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """What a stage found, as JSON: found now, or read back where an earlier run was through with it."""
        file = self.folder / STAGES / f"{name}.json"
        if file.is_file():
            advice = "remove it, and --resume measures this stage again"
            record = read_sealed(file, f"{self.fingerprint} {name}", advice=advice)
            self.seconds[name], self.peak_mib[name] = record["seconds"], record["peak_mib"]
            return record["found"]
        with self.timed(name), self.log(name) as work:
            findings = nan_as_null(find())
        self.seconds[name] = round(self.seconds[name] + work.spent, 2)
        record = {"seconds": self.seconds[name], "peak_mib": self.peak_mib[name], "found": findings}
        write_sealed(file, record, f"{self.fingerprint} {name}")
        discard(self.folder / STAGES / f"{name}.work")
        return json.loads(json.dumps(findings))

    def log(self, name: str) -> AbstractContextManager[WorkLog]:
        """While open, the pieces of work of a name are kept, and those of an interrupted run taken; see `work_log`."""
        return work_log(self.folder / STAGES / f"{name}.work", f"{self.fingerprint} {name}")

    @property
    def plan(self) -> dict[str, Any] | None:
        """What an earlier run in this folder was asked; None where there was none."""
        file = self.folder / PLAN
        return read_kept(file, (), "choose another --out") if file.is_file() else None

    def check_plan(self, plan: Mapping[str, Any]) -> None:
        """Write what is asked for, or raise ArtifactError where the folder holds a run of something else."""
        asked, earlier = json.loads(json.dumps(plan)), self.plan
        self.fingerprint, self.resumed = hash_json(asked), earlier is not None
        if earlier is None:
            write_text(self.folder / PLAN, json.dumps(asked, indent=1, ensure_ascii=False))
            return
        differs = [key for key in asked if earlier.get(key) != asked[key]]
        if differs:
            raise ArtifactError(
                f"{self.folder}: holds a run that differs in {', '.join(differs)}; expected the same; repeat its "
                "command, or choose another --out"
            )

    def abandon(self) -> None:
        """Remove what a run leaves that was refused before any of its stages was done."""
        if not list((self.folder / STAGES).glob("*.json")):
            discard(self.folder / STAGES)
            (self.folder / PLAN).unlink(missing_ok=True)

    def tidy(self) -> None:
        """Remove the stage files of a finished run."""
        discard(self.folder / STAGES)


def check_free(folder: Path, *, resume: bool) -> None:
    """Raise ArtifactError for a folder with something else in it; with `resume` a run may be there, or nothing."""
    if folder.exists() and not folder.is_dir():
        raise ArtifactError(f"{folder}: is a file; expected a folder; choose another --out")
    contents = [path for path in folder.iterdir() if not path.name.startswith(PARTIAL)] if folder.exists() else []
    if contents and resume and not (folder / PLAN).is_file():
        raise ArtifactError(f"{folder}: no run to go on with, {PLAN} is missing; expected one; correct --out")
    if contents and not resume:
        raise ArtifactError(f"{folder}: already there; expected a new folder; choose another --out or remove it")


def read_kept(file: Path, keys: Sequence[str], advice: str) -> dict[str, Any]:
    """A JSON object that a run wrote; raises ArtifactError, with what to do, for anything else."""
    tree = read_json(file, advice=advice)
    missing = [key for key in keys if key not in tree] if isinstance(tree, dict) else keys
    if missing or not isinstance(tree, dict):
        lacks = f"has no {', '.join(missing)}" if missing else "is no object"
        raise ArtifactError(f"{file}: {lacks}; expected what a run wrote; {advice}")
    return tree
