"""Tables of the probes and of the tokenizer."""

from tables.measured import read, share


def premium_table() -> list[str]:
    found = {row["language"]: row for row in read("tokenizer.jsonl") if row.get("claim") == "tokenizer premium"}
    rows = ["| language | tokens over English (95 %) | in characters and bytes alone |", "|---|---|---|"]
    for tag, row in sorted(found.items(), key=lambda pair: -pair[1]["estimate"]):
        rows.append(
            f"| {tag} | {row['estimate']:.2f} ({row['low']:.2f}–{row['high']:.2f}) | {row['note'].removeprefix('same sentences ')} |"
        )
    return rows


def training_shares_table() -> list[str]:
    rows = [
        "| tokenizer | counted on | candidates | rank correlation | highest possible | τ-b | γ | largest share outside | smallest inside | mean error |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in read("tokenizer.jsonl"):
        if "gamma" in row:
            name = "bundled" if row["tokenizer"] == "reference" else f"graded, seed {row['seed']}"
            rows.append(
                f"| {name} | {row.get('text', 'other lines of the same text')} | {row['n']} | {row['spearman']:.3f} "
                f"| {row['spearman_ceiling']:.3f} | {row['tau_b']:.3f} | {row['gamma']:.3f} "
                f"| {share(row['largest_outside'], 2)} | {share(row['smallest_inside'], 2)} "
                f"| {share(row['mean_absolute_error'], 2)} |"
            )
    return rows


def known_mixtures_table() -> list[str]:
    rows = [
        "| tokenizer | identified | largest error | decoy | unexplained | shares, or why not |",
        "|---|---|---|---|---|---|",
    ]
    for row in read("training_shares.jsonl")[1:]:
        parts = [f"{tag} {one['share']:.3f}" for tag, one in row["inferred"].items() if one["share"] is not None]
        rows.append(
            f"| {row['tokenizer']} | {row['identified']} of {row['languages']} "
            f"| {'–' if row['largest_error'] is None else format(row['largest_error'], '.3f')} "
            f"| {share(row['decoy'], 2)} | {share(row['unexplained'])} "
            f"| {', '.join(parts) or 'not identified'}{'; not identified: ' if parts and row['why'] else ''}"
            f"{(': ' if not parts else '') + '; '.join(row['why'])} |"
        )
    return rows


def probe_times_table() -> list[str]:
    rows = ["| probe | wall time, s | processor time, s | bar, s |", "|---|---|---|---|"]
    for row in read("probe_times.jsonl")[1:]:
        wall, busy = (", ".join(f"{one:.1f}" for one in row[key]) for key in ("seconds", "processor_seconds"))
        rows.append(f"| {row['probe']} | {wall} | {busy} | {row['bar']:.0f} |")
    return rows


def startup_table() -> list[str]:
    rows = [
        "| command | processor time, s | wall time, s | more than | by, s | bar, s |",
        "|---|---|---|---|---|---|",
    ]
    for row in read("startup.jsonl")[1:]:
        over = (row["over"], f"{row['more']:.2f}", f"{row['bar']:.1f}") if row["over"] else ("–", "–", "–")
        cells = (f"{row['processor_median']:.2f}", f"{row['median']:.2f}", *over)
        rows.append(f"| `{row['command']}` | {' | '.join(cells)} |")
    return rows


def commits_table() -> list[str]:
    """The speed of this tree beside another commit's, and beside a copy of itself."""
    facts, *measured = read("commits.jsonl")
    lines = [
        f"Beside {facts['config']['other'].partition(' ')[0]}, {facts['config']['rounds']} rounds:",
        "",
        "| work | beside | s | s there | as fast (95 %) | largest difference of its figures |",
        "|---|---|---|---|---|---|",
    ]
    for row in measured:
        speed = f"{row['speed']:.2f} ({row['low']:.2f}–{row['high']:.2f})"
        times = f"{row['seconds']:.2f} | {row['seconds_there']:.2f}"
        apart = f"{row['largest_difference']:.0e}" if row["largest_difference"] else "0"
        lines.append(f"| {row['workload']} | {row['beside']} | {times} | {speed} | {apart} |")
    return lines


def latent_language_table() -> list[str]:
    rows = [
        "| lens | after layer | own language | English | best other | English, tokens dealt out | texts led by English | divergence, nats |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in read("latent_language.jsonl"):
        if "texts_led_by_pivot" in row:
            for depth in (0, 1, 4, 8):
                rows.append(
                    f"| {row['lens']} | {'in' if not depth else depth - 1} | {share(row['own'][depth])} "
                    f"| {share(row['pivot'][depth])} | {share(row['best_other'][depth])} "
                    f"| {share(row['pivot_control'][depth])} | {row['texts_led_by_pivot'][depth]} of {row['texts']} "
                    f"| {row['divergence_nats'][depth]:.2f} |"
                )
    return rows


def families_table() -> list[str]:
    rows = [
        "| vectors | at | family, ρ | family by script alone | p | p within scripts | script, ρ |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in read("families.jsonl")[1:]:
        if row["site"] in ("0.resid_in", "2.resid_out", "4.resid_out", "7.resid_out"):
            family = row["family"]
            rows.append(
                f"| {row['vectors']} | {row['site']} | {family['correlation']:.2f} "
                f"| {family['null_within_scripts']:.2f} | {family['p']:.3f} | {family['p_within_scripts']:.3f} "
                f"| {row['script']['correlation']:.2f} |"
            )
    return rows


def language_heads_table() -> list[str]:
    rows = [
        "| language | head | harm switched off (95 %) | most harm to another | other heads of the layer | harm at mean output |",
        "|---|---|---|---|---|---|",
    ]
    found = [row for row in read("language_heads.jsonl") if "harm" in row]
    mean = {row["language"]: row for row in found if row["how"] != "switched off"}
    for row in found:
        if row["how"] == "switched off":
            drawn = ", ".join(share(one, 2) for one in row["control_sets"])
            rows.append(
                f"| {row['language']} | {', '.join(row['heads'])} | {share(row['harm'], 2)} "
                f"({share(row['low'], 2)}–{share(row['high'], 2)}) | {share(row['most_other_harm'], 2)} | {drawn} "
                f"| {share(mean[row['language']]['harm'], 2)} |"
            )
    return rows
