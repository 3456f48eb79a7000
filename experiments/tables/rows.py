"""The table of rows: each method beside its paper."""

from rows.catalogue import ROWS

from tables.measured import read


def rows_table() -> list[str]:
    """One line for each row, its mark last."""
    measured = {line["row"]: line for line in read("rows.jsonl")}
    table = [
        "| row | method | source | call | largest difference from the witness | planted, found | paper | here, and under the "
        "control | verdict | processor seconds | not there | |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for number, entry in ROWS.items():
        first = f"| {number} | {entry.title} | {entry.source} | {f'`{entry.command}`' if entry.command else '–'} "
        if number not in measured:
            mark, said = ("◐", "not measured") if entry.command else ("○", "not there")
            table.append(first + f"| – | – | – | – | – | – | {said} | {mark} |")
            continue
        line = measured[number]
        witnesses = "<br>".join(f"{w['difference']:.1e} (bar {w['bar']:.0e}): {w['what']}" for w in line["witnesses"])
        planted = "<br>".join(
            f"{p['what']}: recall {p['recall']:g}, precision {p['precision']:g}" for p in line["planted"]
        )
        papers = "<br>".join(h["paper"] for h in line["headlines"])
        here = "<br>".join(f"{h['model']}: {h['ours']}; {h['control']}" for h in line["headlines"])
        verdicts = "<br>".join(h["verdict"] for h in line["headlines"])
        cells = [
            witnesses,
            planted,
            papers,
            here,
            verdicts,
            f"{line['processor_seconds']:.0f}",
            "<br>".join(line["absent"]),
        ]
        table.append(first + "| " + " | ".join(cell or "–" for cell in cells) + f" | {line['mark']} |")
    return table


def rows_summary() -> list[str]:
    """How many rows bear which mark, and what all of them cost."""
    measured = {line["row"]: line for line in read("rows.jsonl")}
    marks = [measured[n]["mark"] if n in measured else "◐" if entry.command else "○" for n, entry in ROWS.items()]
    minutes = sum(line["processor_seconds"] for line in measured.values()) / 60
    counts = ", ".join(f"{marks.count(mark)} {mark}" for mark in "●◐○")
    return [f"{len(ROWS)} rows: {counts}. All that were measured took {minutes:.0f} minutes of processor time."]
