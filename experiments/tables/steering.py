"""Tables of the ways of steering and of features."""

from tables.measured import read, share


def methods_table(file: str = "steering_methods.json") -> list[str]:
    """Every way of steering that was scored on test prompts."""
    rows = [
        "| method | source | setting | success on test | of native | perplexity ratio | distinct-4 ratio |",
        "|---|" + "---|" * 6,
    ]
    for name, e in read(file)["methods"].items():
        setting = f"layer {e['layer']}, {e['strength']:g}, fading to {e['end']:g}" if e["strength"] else "–"
        of_native = "–" if e["of_native"] is None else f"{e['of_native']:.3f}"
        rows.append(
            f"| {name} | {e['source']} | {setting} | {e['success']:.3f} ({e['low']:.3f}–{e['high']:.3f}), n {e['n']} "
            f"| {of_native} | {e['perplexity_ratio']:.2f} | {e['distinct4_ratio']:.2f} |"
        )
    return rows


def feature_settings_table() -> list[str]:
    """The best setting of each autoencoder on validation text, which chose."""
    rows = [
        "| autoencoder | site | features | tau | at most | languages that pass both bars of five | energy of matched controls over the set's |",
        "|---|" + "---|" * 6,
    ]
    found = [row for row in read("feature_ablation.json")["rows"] if row["part"] == "valid"]
    for name in dict.fromkeys(row["sae"] for row in found):
        e = max((row for row in found if row["sae"] == name), key=lambda row: (row["passed"], -row["miss"]))
        energies = list(e["energy_of_matched"].values())
        rows.append(
            f"| {name} | {e['site']} | {e['features']} | {e['tau']:g} | {e['cap']} | {e['passed']} "
            f"| {sum(energies) / len(energies):.2f} |"
        )
    return rows


CONTROLS = {
    "feature_matched": "as many, matched at random",
    "feature_loudest": "as many, the loudest",
    "feature_loud": "many, until as much is written or none is left",
}


def features_table() -> list[str]:
    """In how many languages the features' own harm passes each bar, by autoencoder and control."""
    found = read("feature_ablation.json")
    rows = [
        "| autoencoder | own text hurt most | ≥ 5 × the other languages | control | ≥ 5 × control | p ≤ .05 | all three | median ratio | stream taken out, set | control |",
        "|---|" + "---|" * 9,
    ]
    tests = [("chosen", found["test"]), *((f"seed {n}", e) for n, e in enumerate(found["seeds"], start=1))]
    for name, test in [*tests, *((e["name"], e) for e in found["earlier"])]:
        for control, words in CONTROLS.items():
            if (e := test["controls"].get(control)) is None:
                continue
            ranks = (str(e.get(key, "–")) for key in ("p_at_most_.05", "specific"))
            taken = (share(one["taken"]) if "taken" in one else "–" for one in (test, e))
            rows.append(
                f"| {name} | {test['hurt_most']} | {test['five_times_others']} | {words} | {e['five_times_control']} "
                f"| {' | '.join(ranks)} | {e['median_ratio']:.1f} | {' | '.join(taken)} |"
            )
    chosen = found["chosen"]
    return [
        *rows,
        "",
        f"Of {found['test']['languages']} languages. Chosen: {chosen['sae']}, {chosen['site']}, tau {chosen['tau']:g}, "
        f"at most {chosen['cap']} features a language; the seeds are the same autoencoder trained again.",
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


def massive_table() -> list[str]:
    """Shares of the largest unit, of the stream and of directions in both forms, over the layers of each model."""
    rows = [
        "| model | layers of the ordinary form | largest unit's share of the stream | first tokens × | largest unit of a "
        "direction, whole | without first tokens and massive units | default |",
        "|---|---|---|---|---|---|---|",
    ]
    found = read("massive_units.jsonl")
    for model in dict.fromkeys(row["model"] for row in found):
        mine = [row for row in found if row["model"] == model]
        layers, directions = ([row for row in mine if row["row"] == kind] for kind in ("stream", "direction"))
        ordinary = sum(row["default"] == "ordinary" for row in layers)
        cells = [
            f"{ordinary} of {len(layers)}",
            middle([row["unit_share"] for row in layers]),
            middle([row["first_ratio"] for row in layers], 1),
            middle([row["whole"] for row in directions]),
            middle([row["ordinary"] for row in directions]),
            middle([row[row["default"]] for row in directions]),
        ]
        rows.append(f"| {model} | {' | '.join(cells)} |")
    return rows


def middle(values: list[float], digits: int = 2) -> str:
    """Median, and the range."""
    ordered = sorted(values)
    size, half = len(ordered), len(ordered) // 2
    median = (ordered[half] + ordered[(size - 1) // 2]) / 2
    return f"{median:.{digits}f} ({ordered[0]:.{digits}f}–{ordered[-1]:.{digits}f})"


def massive_steering_table() -> list[str]:
    """Both forms at the layer and strength chosen on validation prompts, beside their controls."""
    rows = ["| model | answers | form | layer | strength | n | success | perplexity × | distinct-4 × |"]
    rows.append("|---|---|---|--:|--:|--:|--:|--:|--:|")
    for row in read("massive_units.jsonl"):
        if row["row"] == "steering" and row["split"] == "test":
            plain = row["kind"] in ("native", "unsteered")
            where = ["–"] * 3 if plain else [row["form"], str(row["layer"]), f"{row['strength']:g} {row['unit']}"]
            success = f"{row['success']:.2f} ({row['low']:.2f}–{row['high']:.2f})"
            ratios = [f"{row[name]:.2f}" for name in ("perplexity_ratio", "distinct4_ratio")]
            cells = [row["model"], row["kind"], *where, str(row["n"]), success, *ratios]
            rows.append(f"| {' | '.join(cells)} |")
    return rows
