"""Tables of the main job: ablation, steering, cost."""

from tables.measured import read, share


def ablation_table() -> list[str]:
    demo = read("demo.json")
    found, languages = demo["ablation"], demo["languages"]
    rows = [
        "| set of | neurons | own text | most hurt other text | layer-matched | contribution-matched | p | own text most hurt |"
    ]
    rows.append("|---|---|---|---|---|---|---|---|")
    for k, tag in enumerate(languages):
        own = found["relative_harm"][k][k]
        others = [value for t, value in enumerate(found["relative_harm"][k]) if t != k]
        drawn = [
            sum(map(abs, found[name][tag])) / len(found[name][tag])
            for name in ("layer_matched", "contribution_matched")
        ]
        low = found["specificity"][tag][1]
        verdict = "yes" if low > 0 else ("yes, interval reaches 0" if own > max(others) else "no")
        rows.append(
            f"| {tag} | {demo['neurons'][tag]} | {share(own, 2)} | {share(max(others), 2)} | {share(drawn[0], 2)} "
            f"| {share(drawn[1], 2)} | {found['p'][tag]:.2f} | {verdict} |"
        )
    return rows


def steering_table() -> list[str]:
    found = read("demo.json")["steering"]
    names = ["success", "native", "unsteered", "random", "other_language", "neuron_arithmetic"]
    rows = [
        "| target | steered | native ceiling | unsteered | random direction | other language | neuron arithmetic | perplexity ratio | distinct-4 ratio |"
    ]
    rows.append("|---|" + "---|" * 8)
    for tag in found["success"]:
        cells = " | ".join(share(found[name].get(tag), 0) for name in names)
        rows.append(f"| {tag} | {cells} | {found['perplexity_ratio'][tag]:.2f} | {found['distinct4_ratio'][tag]:.2f} |")
    macro = found["macro"]
    keys = ["steered", "native", "unsteered", "random", "other_language", "neuron_arithmetic"]
    cells = " | ".join(
        f"{share(macro[key][0], 0)} ({share(macro[key][1], 0)}–{share(macro[key][2], 0)})" for key in keys
    )
    distinct = sum(found["distinct4_ratio"].values()) / len(found["distinct4_ratio"])
    rows.append(f"| macro (95 %) | {cells} | {found['geometric_mean_perplexity_ratio']:.2f} | {distinct:.2f} |")
    return rows


def cost_table() -> list[str]:
    rows = ["| | ratio to | median | 95 % interval | rounds |", "|---|---|---|---|---|"]
    for row in read("observe.jsonl"):
        rows.append(
            f"| observe {', '.join(row['sites'])}, {row['model']}, {row['clock']} time | {row['base']} "
            f"| {row['ratio']:.3f} | {row['low']:.3f}–{row['high']:.3f} | {row['rounds']} |"
        )
    for row in read("steering.jsonl"):
        rows.append(
            f"| generate with {row['variant']} | plain generate | {row['ratio']:.3f} | {row['low']:.3f}–{row['high']:.3f} "
            f"| {row['rounds']} |"
        )
    return rows


def summary_lines() -> list[str]:
    """The ablation of the demo in three sentences."""
    demo = read("demo.json")
    found = demo["ablation"]
    twelve = demo["languages"]
    columns = [demo["languages"].index(tag) for tag in twelve]
    own = [found["relative_harm"][k][k] for k in columns]
    drawn = {
        name: [sum(map(abs, found[name][tag])) / len(found[name][tag]) for tag in twelve]
        for name in ("layer_matched", "contribution_matched")
    }
    sure = sum(found["specificity"][tag][1] > 0 and demo["neurons"][tag] >= 5 for tag in twelve)
    ratios = {name: sum(own) / sum(values) for name, values in drawn.items()}
    small = sum(found["p"][tag] <= 0.05 for tag in twelve)
    return [
        f"Of the twelve main languages, the own text is hurt most, with the interval above zero, in {sure} "
        f"({sum(found['own_hurt_most'][tag] for tag in twelve)} without asking for the interval). Mean own harm is "
        f"{ratios['layer_matched']:.1f} times the mean absolute harm of layer-matched sets and "
        f"{ratios['contribution_matched']:.1f} times that of contribution-matched ones; p ≤ .05 against both in {small}. "
        f"{demo['identification']['method']} at top_rate {demo['top_rate']} was chosen on validation text among two methods and four rates. The demo took {demo['seconds']['total']:.0f} s."
    ]
