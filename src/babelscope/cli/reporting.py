"""The verbs `demo` and `report`."""

from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional, arg

from babelscope.cli.arguments import Device, Dtype, Result, Seed
from babelscope.demo import run_demo
from babelscope.report import write_report


def run_demonstration(
    *,
    out: Path,
    seed: Seed = 0,
    device: Device = "auto",
    dtype: Dtype = "auto",
    include_samples: Annotated[bool, tyro.conf.arg(help="show text in the report")] = True,
) -> Result:
    """The main job on the bundled model and corpus; writes results.json and report.html into a new folder.

    Args:
        out: the new folder.
    """
    results = run_demo(out, device=device, dtype=dtype, seed=seed, include_samples=include_samples, progress=True)
    return {
        "report": str(out / "report.html"),
        "neurons": results["neurons"],
        "top_rate": results["top_rate"],
        "own_hurt_most": sum(results["ablation"]["own_hurt_most"].values()),
        "steering_macro": results["steering"]["macro"],
        "seconds": results["seconds"],
    }


def run_report(
    runs: Annotated[Positional[tuple[Path, ...]], arg(metavar="RUN …")],
    *,
    out: Path | None = None,
    include_samples: bool = True,
) -> Result:
    """One self-contained HTML page from run folders with results.json.

    Args:
        runs: run folders.
        out: the page; none means report.html in the first folder.
        include_samples: show text in the report.
    """
    return {"report": str(write_report(list(runs), out=out, include_samples=include_samples))}
