"""Tables of kernels, published masks and bodies of text."""

from tables.measured import faster, read, share


def kernel_table() -> list[str]:
    """Kernels on one CPU thread, by CPU time, beside plain torch."""
    rows = ["| kernel, shape | beside | times faster | memory of it |", "|---|---|---|---|"]
    for row in read("sae_counts.jsonl"):
        if row["clock"] == "process":
            memory = share(row["largest_tensor_share"])
            rows.append(f"| sae_counts, {row['shape']} | {row['base']} | {faster(row)} | {memory} |")
    for row in read("attention_stats.jsonl"):
        if row["clock"] == "process":
            shape = f"{row['tokens']} tokens, heads, key heads, dimension {row['heads, key heads, dimension']}"
            memory = share(row.get("memory_share")) if row["base"] == "eager patterns" else "–"
            rows.append(f"| attention_stats, {shape} | {row['base']} | {faster(row)} | {memory} |")
    return rows


def heads_table() -> list[str]:
    """A large head read in parts where a loss is scored, by processor time, beside the whole head."""
    rows = ["| entries | dtype | times faster | largest difference, nats |", "|---|---|---|---|"]
    for row in read("head.jsonl")[1:]:
        rows.append(f"| {row['entries']:,} | {row['dtype']} | {faster(row)} | {row['largest_difference_nats']:.0e} |")
    return rows


def drawing_table() -> list[str]:
    """Tokens drawn by one random number per row, by processor time, beside one per entry."""
    rows = ["| entries | times faster | µs a row | p of the fit to the probabilities |", "|---|---|---|---|"]
    for row in read("drawing.jsonl")[1:]:
        rows.append(f"| {row['entries']:,} | {faster(row)} | {row['us_per_row']:.0f} | {row['p_of_fit']:.2f} |")
    return rows


def releases_table() -> list[str]:
    """Steered words against a plain hook, by release of transformers."""
    _, *measured = read("releases.jsonl")
    rows = ["| transformers | cases | equal, word by word |", "|---|---|---|"]
    rows += [f"| {r['release']} | {r['cases']} | {r['equal']} |" for r in measured]
    return rows


def published_table() -> list[str]:
    """Published masks as they were read, and our rules on published counts."""
    _, *found = read("published_masks.jsonl")
    rows = [
        "| published file | layers | union of the languages | expected | entries that differ |",
        "|---|---|---|---|---|",
    ]
    for row in found:
        rows.append(
            f"| {row['name']} | {row['layers']} | {row['union']:,} | {row['expected']:,} | {row.get('differing', '–')} |"
        )
    return rows


def sources_table() -> list[str]:
    """Mean Jaccard index over languages by pair of texts, a column a rule."""
    _, *found = read("text_sources.jsonl")
    rules = list(dict.fromkeys((row["method"], row["top_rate"]) for row in found))
    rows = [
        "| sets from | and from | " + " | ".join(f"{method}, {rate:g}" for method, rate in rules) + " |",
        "|---|---|" + "---|" * len(rules),
    ]
    cells: dict[tuple[str, str], list[str]] = {}
    for row in found:
        cell = f"{row['mean']:.2f} ({row['low']:.2f}–{row['high']:.2f}), chance {row['mean_chance']:.2f}"
        cells.setdefault(tuple(row["pair"]), []).append(cell)
    return [*rows, *(f"| {a} | {b} | {' | '.join(mine)} |" for (a, b), mine in cells.items())]
