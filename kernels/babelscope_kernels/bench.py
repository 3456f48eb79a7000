"""Benchmark of the kernels: `python -m babelscope_kernels.bench <kernel or all> [--json FILE] [--cpu]`.

One call checks every case first, and gives no number if one is red: every red outcome is printed, and `--check` ends
there, and `--checked` says that such a call was green on this machine, at this commit. It measures what the machine can
do (copy bandwidth, bfloat16 matrix product); times every form; and adds rows to kernels/results/<kernel>.csv, each
timing's as soon as it is done. `all` runs each kernel in a process of its own, so that a fault of one leaves the others
standing.

The call keeps within `--budget` seconds, 540 if not told. Each kernel of `all` has an equal part of what is left, and
each timing half of what its kernel has left, after which its baselines are left out. All that was left out is named,
and the call ends with 1; the same call with `--resume` goes on where the rows of this commit and machine end. Without a
GPU it says so and ends with 1; with `--cpu` it times the torch forms on one core, small, and adds no row.
"""

import argparse
import datetime
import importlib.metadata
import json
import logging
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from babelscope_kernels.checking import Outcome, check
from babelscope_kernels.errors import KernelError
from babelscope_kernels.names import NAMES
from babelscope_kernels.results import Place, Row, append, measured, table, write_whole
from babelscope_kernels.timing import NEVER, OURS, Deadline, Form, Timer, Timing, on_cpu, on_gpu, timings_of

RESULTS = Path(__file__).parents[1] / "results"
SECONDS = 540
"""For one call; `all` shares them."""
STUCK = 2
"""A kernel of `all` that takes so many times its part is ended, and the next begun."""
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


class Measured(NamedTuple):
    """What was timed, and what was not."""

    rows: list[Row]
    left_out: list[str]
    """For time: a timing, or a form of one."""


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


def rows_of(
    kernel: str,
    timing: Timing,
    timer: Timer,
    best: Ceilings,
    facts: Mapping[str, str],
    deadline: Deadline = NEVER,
) -> Measured:
    """Time every form of one timing. A baseline that cannot run here is logged and left out; ours must run.

    Baselines that are not begun (compiled, say) at the deadline are left out.
    """
    forms, late = {OURS: timing.forms[OURS]}, []
    for name, form in timing.forms.items():
        if name != OURS and deadline.left() <= 0:
            late.append(f"{_label(timing)}: {name}")
        elif name == OURS or _runs(name, timing, form):
            forms[name] = form
    found = timer(forms)
    rows = [
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
    return Measured(rows, late)


def _label(timing: Timing) -> str:
    return f"{timing.name} {timing.shape} {timing.dtype}"


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
        command = ["git", "-C", str(Path(__file__).parent), *words]
        try:
            return subprocess.run(command, capture_output=True, text=True).stdout.strip()
        except OSError:  # a machine without git
            return ""

    head = git("rev-parse", "--short", "HEAD")
    return (head + ("+" if git("status", "--porcelain", "--", "*.py") else "")) or "unknown"


def bench(
    kernel: str,
    device: torch.device,
    timer: Timer,
    best: Ceilings,
    facts: Mapping[str, str],
    *,
    deadline: Deadline = NEVER,
    done: Collection[Place] = (),
    keep: Callable[[list[Row]], None] = lambda rows: None,
    checked: bool = False,
) -> Measured:
    """Check every case of a kernel, then time it; raises KernelError, without a number, if a case is red.

    checked: the cases were checked already, so nothing but time is measured.
    done: timings whose forms are all there are passed over. keep: called with the rows of each timing when it is done.
    """
    small = device.type == "cpu"
    if done and all(_whole(timing, done) for timing in timings_of(kernel, device, small)):
        return Measured([], [])
    red = [] if checked else [outcome for outcome in check(kernel, "auto", device.type) if not outcome.good]
    if red:
        raise KernelError(_told_red(kernel, red, "so nothing is timed"))
    rows: list[Row] = []
    left_out: list[str] = []
    for timing in timings_of(kernel, device, small):
        if _whole(timing, done):
            continue
        if deadline.left() <= 0:
            left_out.append(_label(timing))
            continue
        found = rows_of(kernel, timing, timer, best, facts, deadline.part(2))
        keep(found.rows)
        rows += found.rows
        left_out += found.left_out
    return Measured(rows, left_out)


def _told_red(kernel: str, red: Sequence[Outcome], consequence: str) -> str:
    return "\n  ".join([f"{kernel}: {len(red)} outcomes are red, {consequence}:", *map(str, red)])


def _check(kernel: str, device: str, write: Callable[[str], object]) -> bool:
    """Check one kernel and time nothing; whether every outcome is good."""
    outcomes = check(kernel, "auto", device)
    red = [outcome for outcome in outcomes if not outcome.good]
    write(_told_red(kernel, red, f"of {len(outcomes)}") if red else f"{kernel}: {len(outcomes)} outcomes are good")
    write("\n")
    return not red


def _whole(timing: Timing, done: Collection[Place]) -> bool:
    return all((timing.name, timing.shape, timing.dtype, form) in done for form in timing.forms)


def _one(kernel: str, options: argparse.Namespace, deadline: Deadline) -> Measured:
    if options.cpu:
        torch.set_num_threads(1)
    device = torch.device("cpu" if options.cpu else "cuda")
    timer = on_cpu if options.cpu else on_gpu
    sizes = {"n_copy": 2**24, "n_matmul": 1024} if options.cpu else {}
    facts = facts_of(device, options.commit)
    kept: list[Row] = []

    def keep(rows: list[Row]) -> None:
        kept.extend(rows)
        if not options.cpu:
            append(options.results, rows)
        if options.json:
            _write(options.json, [asdict(row) for row in kept])

    done = measured(options.results, kernel, facts) if options.resume and not options.cpu else ()
    best = ceilings(device, timer, **sizes)
    return bench(kernel, device, timer, best, facts, deadline=deadline, done=done, keep=keep, checked=options.checked)


def _alone(kernel: str, words: list[str], part: float, most: float) -> tuple[str, list[dict[str, Any]]]:
    """One kernel in a process of its own: what there is to say of how it ended, and its rows."""
    with tempfile.TemporaryDirectory() as work:
        answer = Path(work) / "rows.json"
        command = [sys.executable, "-m", "babelscope_kernels.bench", kernel, "--json", str(answer), *words]
        try:
            status = subprocess.run([*command, "--budget", str(part)], timeout=most).returncode
        except subprocess.TimeoutExpired:
            status = None
        rows = json.loads(answer.read_text()) if answer.exists() else []
    if status is None:
        there = dict.fromkeys(f"{row['timing']} {row['shape']} {row['dtype']}" for row in rows)
        but = f" but {'; '.join(there)}" if there else ""
        return f"{kernel}: ended after {most:.0f} s, left out for time: all timings{but}\n", rows
    return f"{kernel}: not all was measured\n" if status else "", rows


def _all(options: argparse.Namespace, deadline: Deadline, write: Callable[[str], object]) -> tuple[bool, list[Any]]:
    words = ["--results", str(options.results), "--commit", options.commit]
    words += [f"--{flag}" for flag in ("cpu", "resume", "check", "checked") if getattr(options, flag)]
    fine, rows = True, []
    for number, kernel in enumerate(NAMES):
        part, left = deadline.part(len(NAMES) - number).left(), deadline.left()
        if left <= 0:
            fault, found = f"{kernel}: left out for time: not begun\n", []
        else:
            fault, found = _alone(kernel, words, part, min(left, STUCK * part))
        if fault:
            write(fault)
        fine, rows = fine and not fault, rows + found
        if options.json:
            _write(options.json, rows)
    return fine, rows


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    write_whole(path, (json.dumps(rows, indent=1) + "\n").encode())


def main(words: list[str], write: Callable[[str], object] = sys.stdout.write) -> int:
    """The command; 0 if all was measured."""
    parser = argparse.ArgumentParser(prog="babelscope_kernels.bench", description="Check and time the kernels.")
    parser.add_argument("kernel", choices=[*NAMES, "all"])
    parser.add_argument("--json", type=Path, help="write the rows there as well")
    parser.add_argument("--cpu", action="store_true", help="small shapes on one core; adds no row to the results")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the CSV files")
    parser.add_argument("--commit", default="", help="named in the rows where git cannot be asked")
    parser.add_argument("--budget", type=float, default=SECONDS, help="seconds for the whole call")
    parser.add_argument("--check", action="store_true", help="check every case, print every red outcome, time nothing")
    parser.add_argument("--checked", action="store_true", help="a call of --check was green here: time at once")
    parser.add_argument("--resume", action="store_true", help="leave out what the results hold of this very state")
    options = parser.parse_args(words)
    deadline = Deadline(time.monotonic() + options.budget)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    if not options.cpu and not torch.cuda.is_available():
        write("no CUDA device was found, and the kernels are timed on one; give --cpu for the torch forms\n")
        return 1
    if not options.cpu:
        options.results.mkdir(parents=True, exist_ok=True)  # now, so that no measured row is lost for want of a folder
    if options.kernel == "all":
        fine, rows = _all(options, deadline, write)
    elif options.check:
        return 0 if _check(options.kernel, "cpu" if options.cpu else "cuda", write) else 1
    else:
        try:
            found = _one(options.kernel, options, deadline)
        except KernelError as fault:
            write(f"{fault}\n")
            return 1
        write(table(found.rows))
        if found.left_out:
            write(f"{options.kernel}: left out for time: {'; '.join(found.left_out)}\n")
        fine, rows = not found.left_out, [asdict(row) for row in found.rows]
    if options.json:
        _write(options.json, rows)
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
