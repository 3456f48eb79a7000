"""Tables of the ways of steering and of features."""

from tables.measured import read


def methods_table() -> list[str]:
    """Every way of steering that was scored on test prompts."""
    rows = [
        "| method | source | setting | success on test | of native | perplexity ratio | distinct-4 ratio |",
        "|---|" + "---|" * 6,
    ]
    for name, e in read("steering_methods.json")["methods"].items():
        setting = f"layer {e['layer']}, {e['strength']:g}, fading to {e['end']:g}" if e["strength"] else "–"
        of_native = "–" if e["of_native"] is None else f"{e['of_native']:.3f}"
        rows.append(
            f"| {name} | {e['source']} | {setting} | {e['success']:.3f} ({e['low']:.3f}–{e['high']:.3f}), n {e['n']} "
            f"| {of_native} | {e['perplexity_ratio']:.2f} | {e['distinct4_ratio']:.2f} |"
        )
    return rows


def features_table() -> list[str]:
    """In how many languages the features' own harm passes each bar, by control."""
    found = read("feature_ablation.json")
    rows = [
        "| matched features are drawn from | own text hurt most | ≥ 5 × the other languages | ≥ 5 × matched features | p ≤ .05 |",
        "|---|---|---|---|---|",
    ]
    for name, words in (("unbarred", "all that no language has"), ("barred", "all that the rule selects for none")):
        e = found[name]
        cells = " | ".join(
            str(e.get(key, "–")) for key in ("hurt_most", "five_times_others", "five_times_matched", "p_at_most_.05")
        )
        rows.append(f"| {words} | {cells} |")
    return [*rows, "", f"Of {found['unbarred']['languages']} languages."]
