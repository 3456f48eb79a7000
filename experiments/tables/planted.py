"""The table of what was planted and found."""

from tables.measured import read


def planted_table() -> list[str]:
    """A line for each method and truth: recall and precision in each seed."""
    _, *measured = read("planted.jsonl")
    table = ["| method | planted | truths | recall, of the seeds | precision, of the seeds |", "|---|---|---|---|---|"]
    by_method: dict[tuple[str, str], list[dict]] = {}
    for row in measured:
        by_method.setdefault((row["method"], row["planted"]), []).append(row)
    for (method, planted), rows in by_method.items():
        recall, precision = ("; ".join(f"{row[name]:.2f}" for row in rows) for name in ("recall", "precision"))
        table.append(f"| {method} | {planted} | {rows[0]['truths']} | {recall} | {precision} |")
    return table


def planted_summary() -> list[str]:
    """In how many lines everything was found and nothing else named, in all seeds."""
    facts, *measured = read("planted.jsonl")
    methods = {(row["method"], row["planted"]) for row in measured}
    short = {(row["method"], row["planted"]) for row in measured if min(row["recall"], row["precision"]) < 1}
    names = ", ".join(sorted({method for method, _ in short}))
    return [
        f"{len(methods) - len(short)} of {len(methods)} find all that was planted and nothing else, in each of "
        f"{len(facts['seeds'])} seeds." + (f" Short of that: {names}." if names else "")
    ]
