"""How often the judge of answers errs: the table of docs/judging-answers.md."""

from typing import Any

from babelscope.controls import wilson_interval
from tables.measured import read, share


def judge_table() -> list[str]:
    """Answers judged as they were made, of all and by kind, and false alarms on lines of each language."""
    rows = read("judge.jsonl")
    chosen = [row for row in rows if row["table"] in ("all", "whole text", "kind")]
    names = {"all": "all", "pure and mixed": "pure and mixed, by the whole text's language alone"}
    lines = ["| answers | n | judged as made | 95 % interval |", "|---|---|---|---|"]
    lines += [_line(names.get(row["kind"]) or row["kind"], row["n"], row["right"]) for row in chosen]
    name = "left out: mixed, but no word of the other language tells"
    lines += [_line(name, row["n"], row["right"]) for row in rows if row["table"] == "untold"]
    alarms = [row for row in rows if row["table"] == "alarm"]
    for kind in dict.fromkeys(row["kind"] for row in alarms):
        same = [row for row in alarms if row["kind"] == kind]
        name = "lines of the corpora" if kind == "line" else f"lines with a {kind} put in".replace("a code", "code")
        lines.append(
            _line(f"{name}, not taken for a mixture", sum(r["n"] for r in same), sum(r["right"] for r in same))
        )
    return lines


def _line(name: str, n: int, right: int) -> str:
    low, high = wilson_interval(right, n)
    return f"| {name} | {n} | {share(right / n)} | {share(low)}–{share(high)} |"


def neighbours_table() -> list[str]:
    """By pair of neighbours: pure, wholly the other, and mixtures by the share of the other language."""
    rows = [row for row in read("judge.jsonl") if row["table"] == "pair"]
    lines = ["| target, other | pure | wholly the other | mixed 20 % | 30 % | 50 % |", "|---|---|---|---|---|---|"]
    for pair in dict.fromkeys((row["target"], row["other"]) for row in rows):
        same = [row for row in rows if (row["target"], row["other"]) == pair]
        cells = [
            _cell([row for row in same if row["kind"].endswith(end)]) for end in ("pure", "whole", "20%", "30%", "50%")
        ]
        lines.append(f"| {', '.join(pair)} | {' | '.join(cells)} |")
    return lines


def _cell(rows: list[dict[str, Any]]) -> str:
    return f"{sum(row['right'] for row in rows)} of {sum(row['n'] for row in rows)}"


def judge_cost() -> list[str]:
    """One sentence on load time, memory and speed."""
    (row,) = (row for row in read("judge.jsonl") if row["table"] == "load")
    return [
        f"The first answers take {row['seconds']:.1f} s and {row['MB']:.0f} MB, then {row['answers_per_second']:.0f} "
        "answers a second on one core."
    ]
