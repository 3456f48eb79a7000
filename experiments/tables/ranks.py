"""What two processes of one launcher save."""

from tables.measured import read


def ranks_line() -> list[str]:
    """Seconds of one process and of several, and what of the result is equal."""
    (row,) = read("ranks.jsonl")
    tokens = row["tokens"] * len(row["languages"])
    counts = "all counts equal" if row["counts_equal"] else "counts differ"
    return [
        f"{row['model']}, {tokens:,} tokens in {row['dtype']} on a CPU, one thread a process, starting included: "
        f"{row['seconds']['one']:.0f} s in one process, {row['seconds']['ranks']:.0f} s in {row['ranks']} "
        f"({row['times_faster']:.2f} times as fast); {counts}, sums equal or within "
        f"{row['largest_relative_difference_of_sums']:.0e} of the largest."
    ]


def training_ranks_line() -> list[str]:
    """Seconds of a step of `adapt` in one process and in several, and how far the trained values differ."""
    (row,) = read("training_ranks.jsonl")
    seconds = row["seconds_per_step"]
    return [
        f"`adapt` of the {row['model']} model, {row['trained']:,} values trained, steps of {row['tokens_per_step']:,} tokens "
        f"on a CPU, one thread a process: {seconds['one']:.2f} s a step in one process, {seconds['ranks']:.2f} s in "
        f"{row['ranks']} ({row['times_faster']:.2f} times as fast; as many processes that share nothing do "
        f"{row['times_faster_at_most']:.2f} times the steps of one); after {max(row['steps'])} steps the values differ by "
        f"at most {row['largest_difference']:.0e}, of changes up to {row['largest_change']:.0e}."
    ]
