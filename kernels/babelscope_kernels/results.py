"""Rows of the benchmark: the files that they are added to, and their table."""

import csv
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from babelscope_kernels.errors import KernelError


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


Place = tuple[str, str, str, str]
"""Timing, shape, dtype and form."""


def append(folder: Path, rows: Sequence[Row]) -> None:
    """Add rows to <folder>/<kernel>.csv, all or none of a kernel's; nothing in the file is changed."""
    if not folder.is_dir():
        raise KernelError(f"results folder '{folder}' does not exist; make it, or give another with --results")
    for kernel in dict.fromkeys(row.kernel for row in rows):
        path = folder / f"{kernel}.csv"
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, list(Row.__dataclass_fields__))
        if not path.exists():
            writer.writeheader()
        writer.writerows(asdict(row) for row in rows if row.kernel == kernel)
        write_whole(path, (path.read_bytes() if path.exists() else b"") + text.getvalue().encode())


def write_whole(path: Path, content: bytes) -> None:
    """Put a file in place, so that a process ended in the midst, or a power cut, leaves the old one.

    What `babelscope.files.writing` does for the toolkit, which the kernels may not import.
    """
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def measured(folder: Path, kernel: str, facts: Mapping[str, str]) -> set[Place]:
    """What the file of a kernel holds of this GPU, these versions and this commit; nothing for a changed tree."""
    path = folder / f"{kernel}.csv"
    if facts["commit"] == "unknown" or facts["commit"].endswith("+") or not path.exists():
        return set()
    same = [name for name in facts if name != "date"]
    with path.open(newline="", encoding="utf-8") as file:
        return {
            (row["timing"], row["shape"], row["dtype"], row["form"])
            for row in csv.DictReader(file)
            if all(row[name] == facts[name] for name in same)
        }


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
