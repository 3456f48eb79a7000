"""Benchmark of the kernels: `python -m babelscope_kernels.bench <kernel or all> [--json FILE] [--cpu]`.

One call checks every case first, and gives no number if one is red; measures what the machine can do (copy bandwidth,
bfloat16 matrix product); times every form; and adds rows to kernels/results/<kernel>.csv. `all` runs each kernel in a
process of its own, so that a fault of one leaves the others standing. Without a GPU it says so and ends with 1; with
`--cpu` it times the torch forms on one core, small, and adds no row.
"""

import argparse
import csv
import datetime
import importlib.metadata
import json
import logging
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from babelscope_kernels.checking import check
from babelscope_kernels.errors import KernelError
from babelscope_kernels.names import NAMES
from babelscope_kernels.timing import OURS, Form, Timer, Timing, on_cpu, on_gpu, timings_of

RESULTS = Path(__file__).parents[1] / "results"
SECONDS = 140
"""For one kernel of `all`; a slower one is ended and the next begun."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ceilings:
    """What this machine does at best, measured in the same call."""

    copy_gbps: float
    """10⁹ bytes a second, read and written."""
    matmul_tflops: float
    """10¹² operations a second; bfloat16 8192³ on a GPU, float32 1024³ on a CPU."""

    def floor_ms(self, timing: Timing) -> float:
        """The roofline: no form can be faster."""
        return 1e3 * max(timing.bytes / (1e9 * self.copy_gbps), timing.flops / (1e12 * self.matmul_tflops))


@dataclass(frozen=True)
class Row:
    """One form of one timing: a line of the results."""

    kernel: str
    timing: str
    form: str
    median: float
    p20: float
    p80: float
    unit: str
    shape: str
    dtype: str
    gbps: float
    tflops: float
    roofline_share: float
    """Least possible time over the median."""
    times_ours: float
    """Median over ours: above 1 means that ours is faster."""
    copy_gbps: float
    matmul_tflops: float
    gpu: str
    torch: str
    triton: str
    commit: str
    date: str


def ceilings(device: torch.device, timer: Timer, n_copy: int = 2**30, n_matmul: int = 8192) -> Ceilings:
    """Copy bandwidth of so many float32 values, and the rate of a square matrix product."""
    kind = torch.bfloat16 if device.type == "cuda" else torch.float32
    source = torch.ones(n_copy, device=device)
    target = torch.empty_like(source)
    left = torch.randn(n_matmul, n_matmul, device=device).to(kind)
    forms: dict[str, Form] = {"copy": lambda: target.copy_(source), "matmul": lambda: left @ left}
    found = timer(forms)
    return Ceilings(
        copy_gbps=2 * source.nbytes / (1e6 * found["copy"].median),
        matmul_tflops=2 * n_matmul**3 / (1e9 * found["matmul"].median),
    )


def rows_of(kernel: str, timing: Timing, timer: Timer, best: Ceilings, facts: Mapping[str, str]) -> list[Row]:
    """Time every form of one timing. A baseline that can not run here is logged and left out; ours must run."""
    forms = {name: form for name, form in timing.forms.items() if name == OURS or _runs(name, timing, form)}
    found = timer(forms)
    return [
        Row(
            kernel=kernel,
            timing=timing.name,
            form=form,
            median=round(one.median, 5),
            p20=round(one.p20, 5),
            p80=round(one.p80, 5),
            unit="ms",
            shape=timing.shape,
            dtype=timing.dtype,
            gbps=round(timing.bytes / (1e6 * one.median), 1),
            tflops=round(timing.flops / (1e9 * one.median), 2),
            roofline_share=round(best.floor_ms(timing) / one.median, 4),
            times_ours=round(one.median / found[OURS].median, 3),
            copy_gbps=round(best.copy_gbps, 1),
            matmul_tflops=round(best.matmul_tflops, 3),
            **facts,
        )
        for form, one in found.items()
    ]


def _runs(name: str, timing: Timing, form: Form) -> bool:
    try:
        form()
    except (RuntimeError, OSError) as fault:  # torch.compile without a compiler, a baseline out of memory
        _log.warning("%s: form %s left out: %s", timing.name, name, str(fault).splitlines()[0])
        return False
    return True


def facts_of(device: torch.device, commit: str) -> dict[str, str]:
    """Machine and versions, as every row carries them."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu {platform.machine()}, one thread"
    return {
        "gpu": name,
        "torch": torch.__version__,
        "triton": importlib.metadata.version("triton"),
        "commit": commit or _commit(),
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%MZ"),
    }


def _commit() -> str:
    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(Path(__file__).parent), *words], capture_output=True, text=True
        ).stdout.strip()

    head = git("rev-parse", "--short", "HEAD")
    return (head + ("+" if git("status", "--porcelain", "--", "*.py") else "")) or "unknown"


def append(folder: Path, rows: Sequence[Row]) -> None:
    """Add rows to <folder>/<kernel>.csv; nothing in the file is changed."""
    if not folder.is_dir():
        raise KernelError(f"results folder '{folder}' does not exist; make it, or give another with --results")
    for kernel in dict.fromkeys(row.kernel for row in rows):
        path = folder / f"{kernel}.csv"
        new = not path.exists()
        with path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(Row.__dataclass_fields__))
            if new:
                writer.writeheader()
            writer.writerows(asdict(row) for row in rows if row.kernel == kernel)


def bench(kernel: str, device: torch.device, timer: Timer, best: Ceilings, facts: Mapping[str, str]) -> list[Row]:
    """Check every case of a kernel, then time it; raises KernelError, without a number, if a case is red."""
    red = [outcome for outcome in check(kernel, "auto", device.type) if not outcome.good]
    if red:
        raise KernelError(f"{kernel}: {len(red)} outcomes are red, so nothing is timed; the first: {red[0]}")
    rows: list[Row] = []
    for timing in timings_of(kernel, device, small=device.type == "cpu"):
        rows += rows_of(kernel, timing, timer, best, facts)
    return rows


def table(rows: Sequence[Row]) -> str:
    """Rows for a reader."""
    lines = [f"{'timing':<34}{'form':<22}{'ms':>10}{'p20':>10}{'p80':>10}{'GB/s':>9}{'of limit':>9}{'× ours':>8}"]
    for row in rows:
        place = f"{row.kernel} {row.timing}"
        lines.append(
            f"{place:<34}{row.form:<22}{row.median:>10.4f}{row.p20:>10.4f}{row.p80:>10.4f}"
            f"{row.gbps:>9.0f}{row.roofline_share:>9.1%}{row.times_ours:>8.2f}"
        )
    return "\n".join(lines) + "\n"


def _alone(kernel: str, words: list[str]) -> tuple[bool, list[dict[str, Any]]]:
    """One kernel in a process of its own."""
    with tempfile.TemporaryDirectory() as work:
        answer = Path(work) / "rows.json"
        command = [sys.executable, "-m", "babelscope_kernels.bench", kernel, "--json", str(answer), *words]
        try:
            fine = subprocess.run(command, timeout=SECONDS).returncode == 0
        except subprocess.TimeoutExpired:
            _log.error("%s: ended after %d s", kernel, SECONDS)
            fine = False
        return fine, json.loads(answer.read_text()) if answer.exists() else []


def _one(kernel: str, options: argparse.Namespace) -> list[Row]:
    if options.cpu:
        torch.set_num_threads(1)
    device = torch.device("cpu" if options.cpu else "cuda")
    timer = on_cpu if options.cpu else on_gpu
    sizes = {"n_copy": 2**24, "n_matmul": 1024} if options.cpu else {}
    rows = bench(kernel, device, timer, ceilings(device, timer, **sizes), facts_of(device, options.commit))
    if not options.cpu:
        append(options.results, rows)
    return rows


def main(words: list[str], write: Callable[[str], object] = sys.stdout.write) -> int:
    """The command; 0 if all was measured."""
    parser = argparse.ArgumentParser(prog="babelscope_kernels.bench", description="Check and time the kernels.")
    parser.add_argument("kernel", choices=[*NAMES, "all"])
    parser.add_argument("--json", type=Path, help="write the rows there as well")
    parser.add_argument("--cpu", action="store_true", help="small shapes on one core; adds no row to the results")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the CSV files")
    parser.add_argument("--commit", default="", help="named in the rows where git can not be asked")
    options = parser.parse_args(words)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    if not options.cpu and not torch.cuda.is_available():
        write("no CUDA device was found, and the kernels are timed on one; give --cpu for the torch forms\n")
        return 1
    fine, rows = True, []
    if not options.cpu:
        options.results.mkdir(parents=True, exist_ok=True)  # now, so that no measured row is lost for want of a folder
    if options.kernel == "all":
        rest = [*(["--cpu"] if options.cpu else []), "--results", str(options.results), "--commit", options.commit]
        for kernel in NAMES:
            well, found = _alone(kernel, rest)
            fine, rows = fine and well, rows + found
    else:
        try:
            measured = _one(options.kernel, options)
        except KernelError as fault:
            write(f"{fault}\n")
            return 1
        write(table(measured))
        rows = [asdict(row) for row in measured]
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
