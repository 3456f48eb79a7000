"""Are steered words right on every release of transformers, token by token?

The control is a plain hook in a loop without a cache, which knows nothing of this library: tests/babelscope/
test_generation_witness.py, nine gates and schedules in six ways of generating. One differing word counts against a
release. Greedy words have no seed; each case is shown to change words, or it would prove nothing.
"""

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

from babelscope.files.writing import write_text
from babelscope.runs import Run, environment, run_experiment

ROOT = Path(__file__).parents[1]
WITNESS = ROOT / "tests/babelscope/test_generation_witness.py"


@dataclass(frozen=True)
class Config:
    releases: tuple[str, ...] = ("5.12.1", "5.14.1", "5.16.1", "5.18.0", "5.20.2", "5.22.2", "5.23.0", "5.24.0")
    """Of transformers, each installed with what it asks for into a folder of its own, beside this environment."""
    folder: Path = Path("runs/releases")
    """Where they are kept, to be used again."""
    out: str = ""
    """Folder for releases.jsonl; empty: the run's own results only."""


def run(config: Config, run: Run) -> None:
    done = {row["release"] for row in run.results()}
    for release in config.releases:
        if release not in done:
            run.log([check(release, config.folder.resolve() / release)])
    if config.out:
        first = {"config": {"releases": config.releases}, "environment": environment()}
        lines = [json.dumps(line) for line in (first, *run.results())]
        write_text(Path(config.out) / "releases.jsonl", "\n".join(lines) + "\n")


def check(release: str, folder: Path) -> dict[str, object]:
    """Install one release and count the cases that agree with the witness."""
    if not (folder / "complete").exists():
        install = ["install", "--quiet", "--target", str(folder), f"transformers=={release}"]
        subprocess.run([sys.executable, "-m", "pip", *install], check=True)
        write_text(folder / "complete", "")
    path = os.pathsep.join([str(folder), str(ROOT / "src"), str(ROOT / "kernels")])
    report = folder / "witness.xml"
    subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", str(WITNESS)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    names = [path.name for path in folder.glob("transformers-*.dist-info")]
    assert names == [f"transformers-{release}.dist-info"], names
    cases = [case for case in ElementTree.parse(report).iter("testcase") if "plain_hook" in case.attrib["name"]]
    differing = [case for case in cases if any(case.find(tag) is not None for tag in ("failure", "skipped", "error"))]
    return {"release": release, "cases": len(cases), "equal": len(cases) - len(differing)}


if __name__ == "__main__":
    run_experiment(Config, run)
