"""Tables of what was measured on a GPU."""

import csv

from babelscope_kernels.timing import IN_GRAPH, OURS

from tables.measured import ROOT, read


def gpu_kernels_table() -> list[str]:
    """The timings of each kernel's newest commit, beside the machine's own copy and matrix product."""
    newest: dict[tuple[str, str, str], dict[str, dict[str, str]]] = {}
    for file in sorted((ROOT / "kernels" / "results").glob("*.csv")):
        with file.open(newline="", encoding="utf-8") as lines:
            rows_of_kernel = list(csv.DictReader(lines))
        for row in rows_of_kernel:
            if row["commit"] == rows_of_kernel[-1]["commit"]:
                newest.setdefault((row["kernel"], row["timing"], row["shape"]), {})[row["form"]] = row
    rows = [
        "| kernel, timing, shape | µs | of the limit | in a CUDA graph, of the limit | others, times as long |",
        "|---|---|---|---|---|",
    ]
    for (kernel, timing, shape), forms in newest.items():
        ours = forms[OURS]
        others = ", ".join(
            f"{name} {float(row['times_ours']):.2f}" for name, row in forms.items() if name not in (OURS, IN_GRAPH)
        )
        limit, alone = (
            f"{100 * float(forms[name]['roofline_share']):.0f} %" if name in forms else "" for name in (OURS, IN_GRAPH)
        )
        rows.append(
            f"| {kernel}, {timing}, {shape} | {1e3 * float(ours['median']):.0f} | {limit} | {alone} | {others} |"
        )
    return rows


def gpu_machine_lines() -> list[str]:
    """The machine of the newest rows."""
    with (ROOT / "kernels" / "results" / "swiglu.csv").open(newline="", encoding="utf-8") as lines:
        row = list(csv.DictReader(lines))[-1]
    good = [entry["good"] for entry in read("gpu.jsonl") if entry["part"] == "check"]
    return [
        f"One {row['gpu']}, torch {row['torch']}, Triton {row['triton']}: it copies {float(row['copy_gbps']) / 1e3:.2f} "
        f"TB/s (read and written) and multiplies bfloat16 at {float(row['matmul_tflops']):.0f} TFLOP/s, measured beside "
        f"the kernels. All {sum(good)} outcomes of the cases of {len(good)} kernels were good on it."
    ]


def gpu_step_table() -> list[str]:
    """One training step of a Llama of 8 billion parameters, and its ratios."""
    entries = [row for row in read("gpu.jsonl") if row["part"] == "step"]
    peaks = {row["variant"]: row["peak_bytes"] for row in entries if "peak_bytes" in row}
    rows = [
        "| step | ms | to the floor (95 %) | to fused (95 %) | trained values | peak memory, GB |",
        "|---|---|---|---|---|---|",
    ]
    for row in entries:
        if "seconds" in row:
            ratios = " | ".join(
                f"{row[f'to_{base}']:.2f} ({row[f'to_{base}_low']:.2f}–{row[f'to_{base}_high']:.2f})"
                for base in ("floor", "fused")
            )
            peak = f"{peaks[row['variant']] / 1e9:.1f}"
            rows.append(
                f"| {row['variant']} | {1e3 * row['seconds']:.0f} | {ratios} | {row['trained'] / 1e6:.1f}M | {peak} |"
            )
    return rows


def gpu_passes_table() -> list[str]:
    """Observing and steering beside the bare passes."""
    rows = ["| commit | what | beside | ratio (95 %) | tokens a second without it |", "|---|---|---|---|---|"]
    for row in read("gpu.jsonl"):
        if row["part"] == "passes":
            ratio = f"{row['ratio']:.3f} ({row['low']:.3f}–{row['high']:.3f})"
            rows.append(
                f"| {row['commit']} | {row['what']} | {row['base']} | {ratio} | {row['base_tokens_per_second']:,} |"
            )
    return rows


def gpu_agreement_table() -> list[str]:
    """What the GPU says beside the CPU, on the same model and text."""
    rows = ["| model | what | figures |", "|---|---|---|"]
    for row in read("gpu.jsonl"):
        if row["part"] == "compare":
            known = ("part", "commit", "model", "device", "torch", "what")
            figures = ", ".join(
                f"{name} {value:.2g}" if isinstance(value, float) else f"{name} {value}"
                for name, value in row.items()
                if name not in known
            )
            rows.append(f"| {row['model']} | {row['what']} | {figures} |")
    return rows


JUDGED = ("fallback", "steer", "steer --sweep", "evaluate confusion", "evaluate steering", "study")
"""Commands that judge the language of answers: the GPU's machine could not hold lingua, and had a stand-in."""


def gpu_commands_lines() -> list[str]:
    """How many commands ended well on a GPU, and those whose figures are not all the CPU's, with the control."""
    rows = read("gpu_commands.jsonl")
    asked = [row for row in rows if row["side"].startswith("cuda")]
    ours = [row for row in asked if row["status"] != "not run"]
    missing = "; ".join(row["command"] for row in asked if row["status"] == "not run") or "none"
    control = {row["command"]: row for row in rows if row not in asked and row["status"] != "not run"}
    good = [row for row in ours if row["status"] == 0]
    compared = [row for row in good if row["command"] not in JUDGED]
    unlike = [row for row in compared if row["alike"] < row["figures"]]
    figures, alike = (sum(row[name] for row in compared) for name in ("figures", "alike"))
    lines = [
        f"{len(good)} of {len(ours)} commands ended well on the GPU (torch {ours[0]['torch']}; CPU: torch "
        f"{ours[0]['beside_torch']}, one thread); not run on both: {missing}.",
        f"Of {figures:,} figures that they printed or wrote, {alike:,} are within 1 % of the CPU's. In "
        f"{len(compared) - len(unlike)} of {len(compared)} compared commands all are; the others:",
        "",
        "| command | figures | not alike on the GPU | on one side only | not alike on the CPU with two threads "
        "| farthest (CPU, GPU) |",
        "|---|---|---|---|---|---|",
    ]
    for row in unlike:
        beside = control.get(row["command"])
        again = "not run" if beside is None else str(beside["figures"] - beside["alike"])
        counts = f"{row['figures']:,} | {row['figures'] - row['alike']:,} | {row['on one side']:,} | {again}"
        lines.append(f"| {row['command']} | {counts} | {row['farthest'].lstrip('.')} |")
    return lines
