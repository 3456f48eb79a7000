"""Tables of edited facts: every method in every language, beside the change of equal size."""

from collections.abc import Sequence

from tables.measured import read


def edits_table(lines: Sequence[dict], first: Sequence[str], cells: Sequence[Sequence[str]]) -> list[str]:
    """A line for each language; first, cells: names of the columns before the methods, and what stands in them."""
    methods = list(dict.fromkeys(line["method"] for line in lines))
    by_place = {(line["method"], line["language"]): line for line in lines}
    languages = list(dict.fromkeys(line["language"] for line in lines))
    rows = [
        f"| {' | '.join((*first, *(f'{method}: holds; others unmoved' for method in methods)))} |",
        "|---" * (len(first) + len(methods)) + "|",
    ]
    for language, names in zip(languages, cells, strict=True):
        shares = (share_beside_control(by_place[method, language]) for method in methods)
        rows.append(f"| {' | '.join((*names, *shares))} |")
    return rows


def share_beside_control(line: dict) -> str:
    """New object preferred and other facts unmoved, each with the control's share behind it."""
    pairs = ((line[name], line[f"{name}_by_control"]) for name in ("new", "unmoved"))
    return "; ".join(
        "–" if share is None else f"{share:.2f} ({'–' if control is None else format(control, '.2f')})"
        for share, control in pairs
    )


def planted_edits_table() -> list[str]:
    """The planted model, in which some languages share the neurons of English."""
    facts, *lines = read("planted_edits.jsonl")
    tags = list(dict.fromkeys(line["language"] for line in lines))
    cells = [(tag, "yes" if tag in facts["shared"] else "no") for tag in tags]
    return edits_table(lines, ("asked in", "neurons of English"), cells)


def measured_edits_lines() -> list[str]:
    """Gemma 3 270M, as row 44 measured it."""
    (row,) = (line for line in read("rows.jsonl") if line["row"] == 44)
    return lines_of_edits(row)


def lines_of_edits(row: dict) -> list[str]:
    """A sentence and the table of a row that has one; nothing before it was measured."""
    lines = row.get("table", [])
    if not lines:
        return []
    tags = list(dict.fromkeys(line["language"] for line in lines))
    said = (
        f"Gemma 3 270M, {lines[0]['edits']} facts edited in English: share of edits that hold, and of other facts that "
        "keep their answer; behind each, the same under its control of equal size."
    )
    return [said, "", *edits_table(lines, ("asked in",), [(tag,) for tag in tags])]
