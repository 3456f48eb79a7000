"""The table of a chat model's answers, plain and steered."""

from tables.measured import read, share

WAYS = {"english": "in English, for each target", "own": "in the target language"}


def chat_table() -> list[str]:
    """Right answers by way of asking and condition, with Wilson's intervals, and what was compared before."""
    found = read("chat.jsonl")
    facts, ids = (next(row for row in found if row["row"] == name) for name in ("facts", "ids"))
    best = max((row for row in found if row["row"] == "choice"), key=lambda row: (row["right"], -row["strength"]))
    shares = [row for row in found if row["row"] == "share" and row["target"] is None]
    rows = ["| asked | answers | in the target language | in English | n |", "|---|---|---|---|---|"]
    for row in shares:
        interval = f"{share(row['right'], 0)} ({share(row['low'], 0)}–{share(row['high'], 0)})"
        rows.append(f"| {WAYS[row['way']]} | {row['condition']} | {interval} | {row['in_english']} | {row['n']} |")
    rows += [
        "",
        f"{facts['model']}, {facts['dtype']}, targets {', '.join(facts['targets'])}; layer {best['layer']}, strength "
        f"{best['strength']:g}, chosen on other questions; {facts['tokens']} tokens per language for the direction; greedy, "
        f"at most {facts['new_tokens']} tokens. Ids equal to the template's own: {ids['equal']} of {ids['of']} prompts.",
    ]
    return rows
