"""What did runs of first_gpu_run.sh measure? Their rows go to kernels/results/ and to docs/measured/gpu.jsonl.

Nothing is measured here, so there is no control. A later folder's rows stand in the place of earlier ones of the same
part, also of those that the file holds already; timings of kernels and passes are all kept, with their commits.
"""

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from babelscope_kernels.results import Row, append, measured
from tables.measured import ROOT

from babelscope.files.writing import write_text

PARTS = {"compare": "compare_gpu_with_cpu", "step": "benchmark_adapt", "passes": "benchmark_gpu_passes"}
"""Part of the script, and the experiment that it runs."""


@dataclass(frozen=True)
class Config:
    folders: tuple[Path, ...]
    """The OUT of each run, the earliest first."""
    out: Path = ROOT / "docs" / "measured" / "gpu.jsonl"
    results: Path = ROOT / "kernels" / "results"


def part_rows(folder: Path) -> dict[str, list[dict]]:
    """Rows of the parts that ended well, with the commit that they were measured at."""
    rows = {}
    for part, experiment in PARTS.items():
        done, file = folder / f"{part}.done", folder / f"{experiment}.jsonl"
        if done.exists() and file.exists():
            commit = done.read_text().split()[0]
            entries = [json.loads(line) for line in file.read_text().splitlines()]
            rows[part] = [{"part": part, "commit": commit, **entry} for entry in entries]
    return rows


def checked_rows(folder: Path) -> list[dict]:
    """How many outcomes of each kernel's cases were good, of how many."""
    rows, done = [], folder / "check.done"
    for log in sorted(folder.glob("check-*.log")) if done.exists() else []:
        good = [line for line in log.read_text().splitlines() if line.endswith("outcomes are good")]
        count = int(good[-1].split()[1])
        rows.append({"part": "check", "commit": done.read_text().split()[0], "kernel": log.stem[6:], "good": count})
    return rows


def timing_rows(folder: Path) -> list[Row]:
    rows = []
    for file in sorted((folder / "kernels").glob("*.csv")):
        with file.open(newline="", encoding="utf-8") as lines:
            for words in csv.DictReader(lines):
                values: dict[str, Any] = {
                    name: float(word) if Row.__dataclass_fields__[name].type is float else word
                    for name, word in words.items()
                }
                rows.append(Row(**values))
    return rows


def run(config: Config) -> None:
    parts: dict[str, list[dict]] = {}
    for line in config.out.read_text(encoding="utf-8").splitlines() if config.out.exists() else []:
        row = json.loads(line)
        parts.setdefault(row["part"], []).append(row)
    for folder in config.folders:
        for part, rows in part_rows(folder).items():
            kept = [row for row in parts.get(part, []) if part == "passes" and row["commit"] != rows[0]["commit"]]
            parts[part] = kept + rows
        parts |= {"check": checked} if (checked := checked_rows(folder)) else {}
        for row in timing_rows(folder):
            facts = {name: getattr(row, name) for name in ("gpu", "torch", "triton", "commit")}
            if (row.timing, row.shape, row.dtype, row.form) not in measured(config.results, row.kernel, facts):
                append(config.results, [row])
    lines = [json.dumps(row, ensure_ascii=False) for rows in parts.values() for row in rows]
    write_text(config.out, "\n".join(lines) + "\n")


if __name__ == "__main__":
    run(tyro.cli(Config))
