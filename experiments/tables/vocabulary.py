"""The tables of vocabularies that were trimmed, and of ways in which new rows begin."""

from statistics import mean

from tables.measured import read

FILE = "vocabularies-reference.jsonl"
TRIMS = "vocabularies-gemma-3-270m.jsonl"


def trims_table() -> list[str]:
    """A line for each number of languages: what is left, what is cut otherwise, and what it gains and costs."""
    _, *rows = read(TRIMS)
    table = [
        "| languages | entries | parameters | tokens cut otherwise | bits per byte, mean | largest rise | "
        "seconds per 1,000 bytes |",
        "|---|---|---|---|---|---|---|",
    ]
    for whole in (row for row in rows if row["job"] == "trim"):
        parts = [row for row in rows if row["job"] == "trim, by language" and row["languages"] == whole["languages"]]
        before, after = (mean(row["bits_per_byte"][place] for row in parts) for place in (0, 1))
        worst = max(parts, key=lambda row: row["bits_per_byte"][1] - row["bits_per_byte"][0])
        rise = worst["bits_per_byte"][1] - worst["bits_per_byte"][0]
        seconds = " → ".join(f"{value:.0f}" for value in whole["seconds_per_1000_bytes"])
        table.append(
            f"| {whole['languages']} | {' → '.join(f'{count:,}' for count in whole['entries'])} | "
            f"{' → '.join(f'{count / 1e6:.0f}M' for count in whole['parameters'])} | {100 * whole['recut']:.2f} % | "
            f"{before:.3f} → {after:.3f} | {rise:+.3f} ({worst['language']}) | {seconds} |"
        )
    return table


def trims_summary() -> list[str]:
    """What was measured, and of how many languages bits per byte rise by more than .002."""
    facts, *rows = read(TRIMS)
    config = facts["config"]
    most = max(row["languages"] for row in rows)
    parts = [row for row in rows if row["job"] == "trim, by language" and row["languages"] == most]
    risen = [row["language"] for row in parts if row["bits_per_byte"][1] - row["bits_per_byte"][0] > 0.002]
    return [
        f"Gemma 3 270M, trimmed to the tokens of {config['trim_bytes']:,} bytes at most of each language; unseen text: "
        f"{config['score_bytes']:,} bytes per language for bits per byte, {40 * config['score_bytes']:,} for tokens cut "
        f"otherwise. Of {most} languages {len(risen)} pay more than .002 bits per byte ({', '.join(risen)}): tokens that "
        "the counted text lacks are cut into smaller ones there."
    ]


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
    account = {row["language"]: row["alignment"] for row in measured if row["init"] == "translate"}
    sentences = ", ".join(f"{tag} {alignment['sentences']}" for tag, alignment in account.items())
    none = {(row["language"], row["seed"]): row["tokens"] for row in measured if row["init"] == "none"}
    after = {(row["language"], row["seed"]): row["tokens"] for row in measured if row["init"] == "subword"}
    saved = {
        tag: mean(1 - after[key] / none[key] for key in none if key[0] == tag)
        for tag in dict.fromkeys(key[0] for key in none)
    }
    bits = {(row["init"], row["language"], row["seed"]): row["bits_per_byte"] for row in measured}
    ahead = sum(bits["translate", *key] < bits["translate-shuffled", *key] for key in none)
    by_language = ", ".join(f"{100 * share:.0f} % in {tag}" for tag, share in saved.items())
    return [
        f"Bits per byte of {config['score_bytes']:,} bytes of unseen text of a language, the bundled model, "
        f"{config['size']} new entries learnt from {config['learn_bytes']:,} bytes, mean of {config['seeds']} samples of "
        f"text, the body untouched. The new entries save {by_language} of the tokens. "
        f"Sentences with their English, for `translate`: {sentences}; it is ahead of its control in {ahead} of "
        f"{len(none)} pairs of language and sample."
    ]


EXTENDED = "extended-reference.jsonl"


def extended_table() -> list[str]:
    """A line for each way of training: mean gain by language, harm, tokens per byte, and pairs ahead of the neurons."""
    _, *rows = read(EXTENDED)
    languages = list(dict.fromkeys(row["language"] for row in rows))
    pairs = list(dict.fromkeys((row["language"], row["sample"]) for row in rows))
    by_way = {(row["way"], row["language"], row["sample"]): row for row in rows}
    table = [
        f"| trained | {' | '.join(f'gain, {tag}' for tag in languages)} | harm | tokens per byte | gains more than neurons "
        "alone | than rows with random neurons |",
        "|---|" + "---|" * (len(languages) + 4),
    ]
    for way in dict.fromkeys(row["way"] for row in rows):
        of_way = [by_way[way, *pair] for pair in pairs]
        gains = [mean(row["gain"] for row in of_way if row["language"] == tag) for tag in languages]
        ahead = [
            "–"
            if way == other
            else f"{sum(by_way[way, *p]['gain'] > by_way[other, *p]['gain'] for p in pairs)} of {len(pairs)}"
            for other in ("neurons", "rows and random neurons")
        ]
        harm, tokens = (mean(row[name] for row in of_way) for name in ("harm", "tokens_per_byte"))
        table.append(
            f"| {way} | {' | '.join(f'{gain:+.3f}' for gain in gains)} | {harm:+.3f} | {tokens:.3f} | {' | '.join(ahead)} |"
        )
    return table


def extended_summary() -> list[str]:
    """What was trained, on how much."""
    facts, *rows = read(EXTENDED)
    config = facts["config"]
    steps = sorted({row["steps"] for row in rows if row["way"].startswith("rows ") and "steps" in row})
    return [
        f"The bundled model, {config['size']} new entries that begin as `subword`, {config['steps']} steps of "
        f"{config['tokens_per_step']} tokens with the model's own vocabulary and as many bytes with the new one "
        f"({steps[0]}–{steps[-1]} steps), mean of {config['samples']} samples of text; gain and harm in bits per byte, harm "
        f"over {', '.join(config['others'])}. Learning rates are chosen on valid text, three for each way."
    ]
