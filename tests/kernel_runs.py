"""Runs of the kernels in processes of their own: Triton either interprets or compiles, as it was set at import."""

import json
import os
import subprocess
import sys
from pathlib import Path

from babelscope_kernels.checking import Outcome

ROOT = Path(__file__).parents[1]


def python(*arguments: str, **environment: str) -> list[dict]:
    """JSON of one `python -m …` run, which may end with 1 when it found something bad."""
    clean = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    path = os.pathsep.join([str(ROOT / "kernels"), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        capture_output=True,
        text=True,
        env={**clean, "OMP_NUM_THREADS": "1", **environment, "PYTHONPATH": path},
    )
    assert done.returncode in (0, 1) and done.stdout, done.stderr[-3000:]
    return json.loads(done.stdout)


def interpreted(name: str) -> list[Outcome]:
    """Every outcome of a kernel's cases in Triton's interpreter."""
    rows = python("babelscope_kernels.interpret", name)
    return [Outcome(**{key: value for key, value in row.items() if key != "good"}) for row in rows]


def bad(outcomes: list[Outcome]) -> list[str]:
    """What went wrong, one line each; also a complaint when nothing was run at all."""
    lines = [str(outcome) for outcome in outcomes if not outcome.good]
    return lines if outcomes else ["no outcome"]
