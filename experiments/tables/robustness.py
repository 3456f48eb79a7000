"""Tables of damage, interruption, and what keeping costs."""

from collections import Counter

from tables.measured import read, share

ENDS = ("refused", "equal", "changed", "traceback", "long", "hang", "memory")
CHECKS = ("kill", "Ctrl-C", "SIGTERM", "full disk", "two at once")


def mutations_table() -> list[str]:
    """What opening a damaged artifact gave, by kind; in the last line what may be of it."""
    rows = [row for row in read("robustness.jsonl") if row.get("check") == "mutations"]
    total = next(row for row in rows if row["kind"] == "all")
    lines = [
        "| kind | tried | refused | as saved | a stranger's with right hashes: possible, and other | other content | "
        "traceback, hang, many lines or memory |",
        "|---|---|---|---|---|---|---|",
    ]
    sums: dict[str, Counter[str]] = {}
    for row in rows:
        if row["kind"] != "all":
            counts = Counter({name: row[name] for name in ENDS})
            counts["strange" if row["hashes_made_right"] else "other"] += counts.pop("changed")
            counts["n"] = row["n"]
            sums.setdefault(row["kind"], Counter()).update(counts)
            sums.setdefault("all", Counter()).update(counts)
    for kind, counts in sorted(sums.items(), key=lambda pair: pair[0] == "all"):
        rest = sum(counts[name] for name in ("traceback", "long", "hang", "memory"))
        cells = (counts["n"], counts["refused"], counts["equal"], counts["strange"], counts["other"], rest)
        lines.append(f"| {kind} | {' | '.join(map(str, cells))} |")
    return [
        *lines,
        "",
        f"By {total['mutators']} ways of damage; {total['bad']} of {total['n']} ended otherwise than promised.",
    ]


def kills_table() -> list[str]:
    """Runs of each verb that ended as an uninterrupted one, of those that were tried."""
    rows = read("robustness.jsonl")
    found = {
        (row["verb"], row["check"]): f"{row['equal']} of {row['n']}"
        for row in rows
        if "equal" in row and "verb" in row and row["n"]
    }
    events = {row["verb"]: row["events"] for row in rows if row.get("check") == "seconds"}
    killed = [row for row in rows if row.get("check") == "kill"]
    lines = [
        "| verb | file events | kill -9 | Ctrl-C | SIGTERM | full disk | two at once |",
        "|---|---|---|---|---|---|---|",
    ]
    for verb, count in events.items():
        cells = (found.get((verb, check), "–") for check in CHECKS)
        lines.append(f"| {verb} | {count} | {' | '.join(cells)} |")
    equal, tried = (sum(row[name] for row in killed) for name in ("equal", "n"))
    notes = {f"{row['verb']}: {row['note']}" for row in killed if "note" in row}
    return [
        *lines,
        "",
        *([f"Not every eighth event was tried everywhere: {'; '.join(sorted(notes))}.", ""] if notes else []),
        f"Of all kills {equal} of {tried} ended bit for bit as the uninterrupted run, nothing left beside it.",
    ]


def real_study_line() -> list[str]:
    """A study of a real model that was killed in every stage, beside the one that was not."""
    rows = read("real_study.jsonl")
    total = next(row for row in rows if row.get("check") == "study of a real model")
    kills = [row for row in rows if row.get("check") == "kill"]
    stages = ", ".join(f"{name} {count}" for name, count in total["kills"].items())
    end = "bit for bit that of the uninterrupted one" if total["equal"] and not total["left"] else "another one"
    return [
        f"A study of {rows[0]['config']['model']} of {rows[1]['processor_seconds']:.0f} processor seconds was killed "
        f"{len(kills)} times ({stages}) and gone on with: its result was {end}. A kill lost at most "
        f"{total['most_processor_seconds_lost']:.0f} processor seconds, those of starting again among them "
        f"({total['most_lost']:.0f} by the clock); in all "
        f"{total['processor_seconds_again_per_kill']:.0f} for each kill were spent again. The bar is 60."
    ]


def archives_table() -> list[str]:
    """Compressed text that was cut, or in which one bit was flipped."""
    lines = ["| format | damage | tried | refused | other text |", "|---|---|---|---|---|"]
    for row in read("robustness_input.jsonl"):
        if row.get("check") == "archives":
            cells = (row["format"], row["damage"], row["n"], row["refused"], row["changed"])
            lines.append(f"| {' | '.join(map(str, cells))} |")
    return lines


def calls_line() -> list[str]:
    """Bad calls of every verb."""
    row = next(row for row in read("robustness_input.jsonl") if row.get("check") == "bad calls")
    return [
        f"{row['told']} of {row['n']} bad calls of {row['verbs']} commands ended in one line with exit code 1 or 2 before a "
        f"model was opened, in {row['seconds']:.0f} seconds together."
    ]


def saving_table() -> list[str]:
    """What hashes, syncs and checkpoints take of a run's processor time."""
    rows = [row for row in read("saving.jsonl") if "share" in row]
    lines = ["| work | processor seconds | seconds of saving | share | writes |", "|---|---|---|---|---|"]
    for row in rows:
        cells = (
            f"{row['processor_seconds']:.0f}",
            f"{row['saving_seconds']:.2f}",
            share(row["share"], 2),
            row["writes"],
        )
        lines.append(f"| {row['work']} | {' | '.join(map(str, cells))} |")
    return lines


def long_runs_lines() -> list[str]:
    """Memory over many steering contexts and long texts, and what threads got."""
    rows = read("long_runs.jsonl")
    by = {row["check"]: row for row in rows if "check" in row and row["check"] != "threads"}
    contexts, text = by["contexts"], by["ten times the text"]
    lines = [
        f"- {contexts['n']} steering contexts on one model: {contexts['hooks']} hooks and {contexts['more_attributes']} "
        f"attributes left, memory {contexts['more_kib'] / 1024:+.1f} MiB after the first tenth.",
        f"- A pass over {text['tokens']} tokens per language took {text['kib'] / 1024:.0f} MiB above what was there before, over "
        f"ten times as many {text['ten_times_kib'] / 1024:.0f} MiB.",
    ]
    for row in (row for row in rows if row.get("check") == "threads"):
        on = "one model" if row["models"] == 1 else "a model each"
        lines.append(
            f"- Two threads on {on}: {row['right']} right answers, {row['refused']} refusals in one line, "
            f"{row['wrong']} wrong answers."
        )
    return lines
