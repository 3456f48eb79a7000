"""The table of ways in which new rows begin."""

from statistics import mean

from tables.measured import read

FILE = "vocabularies-reference.jsonl"


def beginnings_table() -> list[str]:
    """A line for each way: bits per byte by language, and in how many pairs it is ahead of random and of sub-words."""
    _, *rows = read(FILE)
    measured = [row for row in rows if row["job"] == "extend"]
    languages = list(dict.fromkeys(row["language"] for row in measured))
    bits = {(row["init"], row["language"], row["seed"]): row["bits_per_byte"] for row in measured}
    pairs = list(dict.fromkeys((row["language"], row["seed"]) for row in measured))
    table = [
        f"| `init` | {' | '.join(languages)} | better than `random` | better than `subword` | processor seconds |",
        "|---|" + "---|" * (len(languages) + 3),
    ]
    for init in dict.fromkeys(row["init"] for row in measured):
        by_language = [
            mean(value for (name, tag, _), value in bits.items() if (name, tag) == (init, language))
            for language in languages
        ]
        ahead = [
            "–"
            if init in ("none", other)
            else f"{sum(bits[init, *p] < bits[other, *p] for p in pairs)} of {len(pairs)}"
            for other in ("random", "subword")
        ]
        seconds = [row["processor_seconds"] for row in measured if row["init"] == init and init != "none"]
        spent = f"{mean(seconds):.0f}" if seconds else "–"
        name = "no new entries" if init == "none" else f"`{init}`"
        table.append(
            f"| {name} | {' | '.join(f'{value:.3f}' for value in by_language)} | {' | '.join(ahead)} | {spent} |"
        )
    return table


def beginnings_summary() -> list[str]:
    """What was measured, and what the new entries save."""
    facts, *rows = read(FILE)
    config = facts["config"]
    measured = [row for row in rows if row["job"] == "extend"]
    none = {(row["language"], row["seed"]): row["tokens"] for row in measured if row["init"] == "none"}
    after = {(row["language"], row["seed"]): row["tokens"] for row in measured if row["init"] == "subword"}
    saved = {
        tag: mean(1 - after[key] / none[key] for key in none if key[0] == tag)
        for tag in dict.fromkeys(key[0] for key in none)
    }
    by_language = ", ".join(f"{100 * share:.0f} % in {tag}" for tag, share in saved.items())
    return [
        f"Bits per byte of {config['score_bytes']:,} bytes of unseen text of a language, the bundled model, "
        f"{config['size']} new entries learnt from {config['learn_bytes']:,} bytes, mean of {config['seeds']} samples of "
        f"text, the body untouched. The new entries save {by_language} of the tokens."
    ]
