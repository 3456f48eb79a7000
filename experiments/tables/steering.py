"""Tables of the ways of steering and of features."""

from tables.measured import read, share


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
    """In how many languages the features' own harm passes each bar, by autoencoder and control."""
    found = read("feature_ablation.json")
    rows = [
        "| autoencoder | control drawn from | own text hurt most | ≥ 5 × the other languages | ≥ 5 × control | p ≤ .05 | energy of the control over the set's |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, words in (("unbarred", "all that no language has"), ("barred", "all that the rule selects for none")):
        e = found[name]
        keys = ("hurt_most", "five_times_others", "five_times_matched", "p_at_most_.05")
        energies = [row["achieved"]["energy"] for row in e["rows"]]
        cells = [*(str(e.get(key, "–")) for key in keys), f"{sum(energies) / len(energies):.2f}"]
        rows.append(f"| fine | {words} | {' | '.join(cells)} |")
    test, setting = found["chosen"]["test"], found["chosen"]["setting"]
    for name, words in (
        ("feature_matched", "all that no language has"),
        ("feature_matched_barred", "all that the rule selects for none"),
        ("feature_loud", "all that no language has, until as much is written"),
    ):
        e = test["controls"][name]
        near = e["achieved"].get("energy", e["achieved"].get("power"))
        rows.append(
            f"| coarse | {words} | {test['hurt_most']} | {test['five_times_others']} | {e['five_times_matched']} "
            f"| {e['p_at_most_.05']} | {near:.2f} |"
        )
    return [
        *rows,
        "",
        f"Of {test['languages']} languages; coarse: at most {setting['cap']} features, tau {setting['tau']:g}.",
    ]


def saes_table() -> list[str]:
    """Autoencoders trained on the bundled model, on held-out text."""
    rows = [
        "| autoencoder | explained variance | L0 | dead share | loss, nats | with the reconstruction | with the mean | recovered |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in read("saes.jsonl")[1:]:
        losses = " | ".join(f"{row[name]:.3f}" for name in ("loss_macro", "spliced_macro", "averaged_macro"))
        rows.append(
            f"| {row['sae']} | {row['explained_variance']:.3f} | {row['l0']:.1f} | {share(row['dead_share'])} | {losses} "
            f"| {row['recovered']:.3f} |"
        )
    return rows


def sensitivity_table() -> list[str]:
    """How far a language's best features stay the same under other settings of LangFIR, mean over languages."""
    _, *found = read("langfir_sensitivity.jsonl")
    rows = ["| setting | value | mean Jaccard index with the default | features before the cap |", "|---|---|---|---|"]
    for setting, value in dict.fromkeys((row["setting"], row["value"]) for row in found):
        mine = [row for row in found if (row["setting"], row["value"]) == (setting, value)]
        jaccard, size = (sum(row[name] for row in mine) / len(mine) for name in ("jaccard", "size"))
        rows.append(f"| {setting} | {value} | {jaccard:.2f} | {size:.0f} |")
    return rows
