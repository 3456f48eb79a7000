"""Tables of training steps, of the adaptation study and of deltas."""

from tables.measured import read, share, spread


def training_table(name: str) -> list[str]:
    """A step of every way of training, beside the floor and the fused subnetwork."""
    _, *found = read(name)
    rows = [
        "| one step of | trained values | to the floor | to the fused form | GFLOP | saved for backward, MB | gradients and "
        "optimizer, MB |",
        "|---|" + "---|" * 6,
    ]
    for row in found:
        rows.append(
            f"| {row['variant']} | {row['trained']:,} | {spread(row, 'to_floor')} | {spread(row, 'to_fused')} "
            f"| {row['flops'] / 1e9:.1f} | {row['saved_bytes'] / 1e6:.1f} | {row['optimizer_bytes'] / 1e6:.2f} |"
        )
    return rows


def training_summary() -> list[str]:
    """One sentence from the benchmark, one for each share from the study."""
    _, *found = read("adapt-llama.jsonl")
    row = {one["variant"]: one for one in found}
    lora = (row["fused"]["saved_bytes"] + row["fused"]["optimizer_bytes"]) / (
        row["lora r8 mlp"]["saved_bytes"] + row["lora r8 mlp"]["optimizer_bytes"]
    )
    times = ", ".join(
        f"{row[name]['to_fused']:.2f} for {words}"
        for name, words in (
            ("fused, torch's products", "the same form with torch's own products"),
            ("lora r8 mlp", "LoRA on the MLPs"),
            ("shira", "SHiRA"),
            ("ffn mask", "a gradient mask"),
            ("full", "all parameters"),
        )
    )
    return [
        f"On one CPU thread a step with 1 % of the neurons takes {row['fused']['to_floor']:.2f} of a step that trains nothing. "
        f"Other ways take, beside that step: {times}. It keeps {lora:.2f} of LoRA's bytes for backward, gradients and optimizer.",
        "",
        *verdict_lines(),
    ]


def delta_table() -> list[str]:
    rows = [
        "| weights | neurons | apply and revert, ms | beside another delta, ms | bytes written |",
        "|---|---|---|---|---|",
    ]
    found = {(row["dtype"], row["percent_of_neurons"], row["variant"]): row for row in read("delta.jsonl")}
    for dtype, percent in dict.fromkeys(key[:2] for key in found):
        alone, beside = found[dtype, percent, "alone"], found[dtype, percent, "beside another delta"]
        rows.append(
            f"| {dtype} | {percent} % | {alone['ms']:.2f} ({alone['low']:.2f}–{alone['high']:.2f}) "
            f"| {beside['ms']:.2f} ({beside['low']:.2f}–{beside['high']:.2f}) | {alone['bytes_written']:,} |"
        )
    return rows


BUNDLED = "adapt_underserved.jsonl"
"""The adaptation study on the bundled model."""
BOUNDS = (0.0, 0.1, 0.25, 0.5, 1.0)
"""Mean harm, in bits per byte, within which the kinds of adaptation are compared."""


def study_rows(name: str) -> tuple[dict, list[dict], list[dict]]:
    """Facts, claims and runs of an adaptation study."""
    facts, *rows = read(name)
    return facts, [row for row in rows if "claim" in row], [row for row in rows if "kind" in row]


def adaptation_table(name: str = BUNDLED) -> list[str]:
    """Mean over seeds of gain and harm, by kind, share and language."""
    facts, _, runs = study_rows(name)
    runs = [row for row in runs if row["stage"] == "main"]
    languages = facts["config"]["languages"]
    rows = [
        "| trained | share | learning rate | " + " | ".join(f"{tag}: gain / harm (seeds)" for tag in languages) + " |",
        "|---|---|---|" + "---|" * len(languages),
    ]
    for kind, part in dict.fromkeys((row["kind"], row["share"]) for row in runs):
        mine = [row for row in runs if (row["kind"], row["share"]) == (kind, part)]
        cells = []
        for tag in languages:
            of = [row for row in mine if row["language"] == tag]
            mean = [sum(row[name] for row in of) / max(1, len(of)) for name in ("gain", "harm")]
            cells.append(f"{mean[0]:.3f} / {mean[1]:.3f} ({len(of)})" if of else "–")
        rows.append(f"| {kind} | {share(mine[0]['trained_share'], 2)} | {mine[0]['rate']:g} | {' | '.join(cells)} |")
    return rows


def rates_table(name: str = BUNDLED) -> list[str]:
    """Gain and harm at every learning rate, one language and seed."""
    _, _, runs = study_rows(name)
    rows = ["| trained | share | learning rate | dev bits per byte | gain | harm |", "|---|---|---|---|---|---|"]
    for row in sorted((row for row in runs if row["stage"] == "rates"), key=lambda row: (row["kind"], row["rate"])):
        rows.append(
            f"| {row['kind']} | {share(row['trained_share'], 2)} | {row['rate']:g} | {row['dev']:.3f} "
            f"| {row['gain']:.3f} | {row['harm']:.3f} |"
        )
    return rows


def frontier_table(name: str) -> list[str]:
    """Within each harm: the kind of the highest mean gain among those whose mean harm is no more, and the next one.

    Of all runs of the study that were made for every pair of language and seed, each kind at its own learning rate.
    """
    _, _, runs = study_rows(name)
    by_kind: dict[tuple[str, float], dict[tuple[str, int], dict]] = {}
    for row in runs:
        if row["stage"] == "main":
            by_kind.setdefault((row["kind"], row["share"]), {})[row["language"], row["seed"]] = row
    pairs = set().union(*by_kind.values())
    whole = {kind: rows for (kind, _), rows in by_kind.items() if set(rows) == pairs}
    means = {
        kind: [sum(row[name] for row in rows.values()) / len(rows) for name in ("gain", "harm")]
        for kind, rows in whole.items()
    }
    lines = [
        "| mean harm at most | highest gain | gain, harm | next | its gain, harm | difference of gain by pair, lowest to "
        "highest |",
        "|---|---|---|---|---|---|",
    ]
    for bound in BOUNDS:
        within = sorted((kind for kind in means if means[kind][1] <= bound), key=lambda kind: -means[kind][0])
        if len(within) < 2:
            lines.append(f"| {bound:g} | {within[0] if within else 'none'} | | | | |")
            continue
        first, second = within[:2]
        apart = sorted(whole[first][pair]["gain"] - whole[second][pair]["gain"] for pair in pairs)
        scores = [f"{means[kind][0]:.3f}, {means[kind][1]:+.3f}" for kind in (first, second)]
        lines.append(
            f"| {bound:g} | {first} | {scores[0]} | {second} | {scores[1]} "
            f"| {apart[0]:+.3f} to {apart[-1]:+.3f} ({len(pairs)}) |"
        )
    return lines


def verdict_lines(name: str = BUNDLED) -> list[str]:
    """The claim in words, from the paired differences; each side at its own learning rate, then at the same."""
    _, claims, runs = study_rows(name)
    lines = []
    for claim in claims:
        said = "holds" if claim["holds"] else "does not hold"
        rates = [
            {row["rate"] for row in runs if (row["kind"], row["share"], row["stage"]) == (kind, claim["share"], stage)}
            for kind, stage in (("language", "main"), ("random", STAGES[claim["learning_rates"]]))
        ]
        lines.append(
            f"- At {share(claim['share'])} trained, {claim['learning_rates']} ({min(rates[0]):g} and {min(rates[1]):g}): "
            f"language neurons gain more than layer-matched random ones in {claim['wins']} of {claim['pairs']} pairs of "
            f"seed and language and harm less in {claim['less_harm']}; mean difference of gain "
            f"{claim['mean_gain_difference']:+.4f}, of harm {claim['mean_harm_difference']:+.4f} bits per byte. By the "
            f"rule of the study the claim {said}."
        )
    return lines


STAGES = {"each at its best learning rate": "main", "both at that of the language's": "equal"}
"""Stage of the random neurons' rows, by the words of a claim."""


def defaults_table() -> list[str]:
    """What `adapt` with its own learning rate does to models that it has not seen."""
    _, *found = read("adapt_defaults.jsonl")
    rows = [
        "| model | language | learning rate | bits per byte before | after | gain | mean rise elsewhere |",
        "|---|" + "---|" * 6,
    ]
    rows += [
        f"| {row['model']} | {row['language']} | {row['learning_rate']:.2g} | {row['before']:.3f} | {row['after']:.3f} "
        f"| {row['gain']:+.3f} | {row['harm']:+.3f} |"
        if "learning_rate" in row
        else f"| {row['model']} | {row['language']} | – | – | – | no step helped, nothing saved | – |"
        for row in found
    ]
    return rows
