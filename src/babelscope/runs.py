"""Run folders: what was asked, where it ran, what came out; and the flags of an experiment."""

import hashlib
import json
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

import tyro

from babelscope.files.writing import append_lines, write_text

C = TypeVar("C")
PACKAGES = ("babelscope", "torch", "transformers", "numpy", "plotly", "lingua-language-detector")


def environment() -> dict[str, Any]:
    """Versions and the machine's kind; no host name, no path."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "python": platform.python_version(),
        "system": platform.system(),
        "machine": platform.machine(),
        "processors": os.cpu_count(),
        "packages": versions,
    }


def peak_mib() -> int:
    """Most memory that this process has held so far, in MiB; memory of a GPU is not in it."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most // (1024**2 if platform.system() == "Darwin" else 1024)


def duration(seconds: float) -> str:
    """A time that somebody waits for, in the unit that says it: 40 s, 12 min, 3.4 h."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5_970 else f"{seconds / 3600:.1f} h"


def commit() -> dict[str, Any]:
    """Commit of the working tree and whether it was changed since; empty outside a checkout."""
    try:
        head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        dirty = subprocess.run(["git", "status", "--porcelain"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return {}
    return {"commit": head, "changed_since": bool(dirty.strip())}


@dataclass(frozen=True)
class Run:
    """One run of an experiment and its folder."""

    folder: Path

    def log(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Append rows to results.jsonl: one row a measured thing."""
        append_lines(self.folder / "results.jsonl", (json.dumps(row, ensure_ascii=False) for row in rows))

    def results(self) -> list[dict[str, Any]]:
        """All rows written so far, from which figures are drawn."""
        file = self.folder / "results.jsonl"
        # Not `splitlines`: an answer in a row may hold U+2028, which JSON leaves as it is.
        # What follows the last line break is half a row that a killed run left.
        lines = file.read_text(encoding="utf-8").split("\n")[:-1] if file.exists() else []
        return [json.loads(line) for line in lines if line]

    def finish(self) -> None:
        """Mark the run complete."""
        write_text(self.folder / "done", "")

    @property
    def done(self) -> bool:
        """Whether the run is complete."""
        return (self.folder / "done").exists()


def open_run(name: str, config: Any, root: Path = Path("runs")) -> Run:
    """The folder of an experiment with this config: made, or found again where an interrupted run left it."""
    settings = dict(config) if isinstance(config, Mapping) else asdict(config)
    text = json.dumps(settings, sort_keys=True, default=str)
    key = hashlib.blake2b(text.encode(), digest_size=4).hexdigest()
    earlier = sorted(path for path in (root / name).glob(f"*-{key}") if not (path / "done").exists())
    folder = earlier[-1] if earlier else root / name / f"{date.today():%Y%m%d}-{key}"
    if (folder / "done").exists():
        return Run(folder)  # Its facts are of the code that made it.
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "config.json", json.dumps(settings, indent=1, default=str))
    write_text(folder / "environment.json", json.dumps({**environment(), **commit()}, indent=1))
    return Run(folder)


def run_experiment(config: type[C], run: Callable[[C, Run], None]) -> None:
    """Command line of an experiment: flags from the dataclass, then the run in its folder."""
    chosen = tyro.cli(config)
    name = Path(run.__code__.co_filename).stem
    folder = open_run(name, chosen)
    if folder.done:
        sys.stdout.write(f"{folder.folder}: these settings were run today; remove the folder to run them again\n")
        return
    run(chosen, folder)
    folder.finish()
