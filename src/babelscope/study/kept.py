"""What each stage found, on disk as soon as it is done: an interrupted study goes on at the stage it was in."""

import json
import logging
import resource
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from babelscope.errors import ArtifactError
from babelscope.runs import plain, write_atomic

log = logging.getLogger(__name__)
PLAN, STAGES = "plan.json", "stages"


class Kept:
    """The stages of one study that are done, with their seconds and peak memory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seconds: dict[str, float] = {}
        self.peak_mib: dict[str, int] = {}

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Time one stage."""
        log.info("%s …", name)
        began = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - began, 2)
        self.peak_mib[name] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        log.info("%s: %.1f s, peak %d MiB", name, self.seconds[name], self.peak_mib[name])

    def stage(self, name: str, find: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """What a stage found, as JSON: found now, or read back where an earlier run was through with it."""
        file = self.folder / STAGES / f"{name}.json"
        if file.is_file():
            kept = json.loads(file.read_text(encoding="utf-8"))
            self.seconds[name], self.peak_mib[name] = kept["seconds"], kept["peak_mib"]
            return kept["found"]
        with self.timed(name):
            found = plain(find())
        kept = {"seconds": self.seconds[name], "peak_mib": self.peak_mib[name], "found": found}
        write_atomic(file, json.dumps(kept, ensure_ascii=False, allow_nan=False))
        return json.loads(json.dumps(found))

    def check_plan(self, plan: Mapping[str, Any]) -> None:
        """Write what is asked for, or raise ArtifactError where the folder holds a study of something else."""
        file, asked = self.folder / PLAN, json.loads(json.dumps(plan))
        if not file.is_file():
            write_atomic(file, json.dumps(asked, indent=1, ensure_ascii=False))
            return
        held = json.loads(file.read_text(encoding="utf-8"))
        differs = [key for key in asked if held.get(key) != asked[key]]
        if differs:
            raise ArtifactError(
                f"{self.folder}: holds a study with another {' and another '.join(differs)}; expected the same; repeat "
                "its command, or choose another --out"
            )
