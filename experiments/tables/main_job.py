"""Tables of the main job: ablation, steering, cost."""

from statistics import mean

from babelscope.controls.matched_sets import LEAST_MATCH
from tables.measured import read, share


def ablation_table(name: str = "demo.json") -> list[str]:
    demo = read(name)
    found, languages = demo["ablation"], demo["languages"]
    rows = [
        "| set of | neurons | own text | most hurt other text | layer-matched | contribution-matched | corrected p | own text most hurt |"
    ]
    rows.append("|---|---|---|---|---|---|---|---|")
    for k, tag in enumerate(languages):
        own = found["relative_harm"][k][k]
        others = [value for t, value in enumerate(found["relative_harm"][k]) if t != k]
        drawn = [
            sum(map(abs, found[control][tag])) / len(found[control][tag])
            for control in ("layer_matched", "contribution_matched")
        ]
        low = found["specificity"][tag][1]
        verdict = "yes" if low > 0 else ("yes, interval reaches 0" if own > max(others) else "no")
        rows.append(
            f"| {tag} | {demo['neurons'][tag]} | {share(own, 2)} | {share(max(others), 2)} | {share(drawn[0], 2)} "
            f"| {share(drawn[1], 2)} | {said_p(found, tag)} | {verdict} |"
        )
    return rows


def corrected_p(found: dict, tag: str) -> float | None:
    """The larger p of the two controls, corrected over languages; None where one of them is not matched."""
    if found["achieved_contribution"][tag] < LEAST_MATCH:
        return None
    return max(found["p_adjusted"][control][tag] for control in ("layer_matched", "contribution_matched"))


def said_p(found: dict, tag: str) -> str:
    p = corrected_p(found, tag)
    return f"unmatched ({share(found['achieved_contribution'][tag], 0)})" if p is None else f"{p:.2f}"


def steering_table(name: str = "demo.json") -> list[str]:
    found = read(name)["steering"]
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


def study_lines(name: str) -> list[str]:
    """What a study of a real model was, what it took, and in how many languages its main claims hold."""
    study = read(name)
    model, ablation, steering, macro = study["model"], study["ablation"], study["steering"], study["steering"]["macro"]
    stages = [stage for stage in study["expected_seconds"] if stage in study["seconds"]]
    took, expected = (sum(study[key][stage] for stage in stages) for key in ("seconds", "expected_seconds"))
    scored = {
        what: f"{share(macro[what][0], 0)} ({share(macro[what][1], 0)}–{share(macro[what][2], 0)})"
        for what in ("steered", "native", "unsteered", "random", "other_language")
    }
    chosen = f"layer {steering['layer']}, strength {steering['strength']}"
    return [
        f"{model['parameters'] / 1e6:.0f}M parameters, {model['layers']} layers, in {model['dtype'].removeprefix('torch.')}; "
        f"{study['identification']['method']} at top_rate {study['top_rate']}. The stages took {took / 60:.0f} min on "
        f"{study['threads']} thread{'s' * (study['threads'] > 1)} beside other work, where {expected / 60:.0f} min were said before; memory reached "
        f"{max(study['environment']['peak_mib'].values()):,} MiB. Sets paired with texts at random: "
        f"p = {ablation['pairing_p']:.4f}. Right answers at {chosen}{', the edge of the grid' if steering['edge'] else ''}: "
        f"steered {scored['steered']}, native {scored['native']}, unsteered {scored['unsteered']}, random direction "
        f"{scored['random']}, other language {scored['other_language']}.",
        "",
        "| own text hurt most, interval above zero | " + " | ".join(UNIT_NAMES.values()) + " |",
        "|---|---|---|---|",
        f"| whole set | {' | '.join(most_hurt(ablation, unit) for unit in UNIT_NAMES)} |",
        f"| neurons of that language alone | {' | '.join(most_hurt(ablation['parts']['exclusive'], unit) for unit in UNIT_NAMES)} |",
        "",
        *(f"{line}." for line in study["number_format"]),
    ]


REAL_STUDIES = {
    "gemma-3-270m": "Gemma 3 270M",
    "qwen2.5-coder-0.5b-instruct": "Qwen2.5-Coder 0.5B Instruct, by its chat template",
}
"""Studies of real models by the end of their files' names."""


def real_summary() -> list[str]:
    """A sentence a real model: steering beside its controls, and whose text a language's neurons hurt."""
    sentences = []
    for name, title in REAL_STUDIES.items():
        study = read(f"study-{name}.json")
        macro, ablation = study["steering"]["macro"], study["ablation"]
        scored = {key: share(macro[key][0], 0) for key in ("steered", "native", "unsteered", "random")}
        sentences.append(
            f"In [{title}](docs/gallery/{name}.html), {len(study['languages'])} languages: {scored['steered']} of the steered answers "
            f"are right ({share(macro['steered'][1], 0)}–{share(macro['steered'][2], 0)}; native text {scored['native']}, unsteered "
            f"{scored['unsteered']}, random directions {scored['random']}); the neurons of one language alone hurt its own text most "
            f"in {most_hurt(ablation['parts']['exclusive'], 'relative')}, whole sets in {most_hurt(ablation, 'relative')}."
        )
    return [" ".join(sentences)]


UNIT_NAMES = {"relative": "of the loss", "nats_per_token": "nats per token", "bits_per_byte": "bits per byte"}


def most_hurt(found: dict, unit: str) -> str:
    """Languages whose own text is hurt more than any other, with the interval above zero, of those with a set."""
    lows = [low for _, low, _ in found["by_unit"][unit]["specificity"].values()]
    return f"{sum(low is not None and low > 0 for low in lows)} of {len(lows)}"


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
    tested = [p for tag in twelve if (p := corrected_p(found, tag)) is not None]
    small = sum(p <= 0.05 + 1e-9 for p in tested)
    return [
        f"Of the twelve main languages, the own text is hurt most, with the interval above zero, in {sure} "
        f"({sum(found['own_hurt_most'][tag] for tag in twelve)} without asking for the interval); sets paired with texts at random: p = {found['pairing_p']:.4f}. Mean own harm is "
        f"{ratios['layer_matched']:.1f} times the mean absolute harm of layer-matched sets and "
        f"{ratios['contribution_matched']:.1f} times that of contribution-matched ones, which says that the neurons matter, not that they are of a language; corrected "
        f"p ≤ .05 against both in {small} of {len(tested)}; in the other {len(twelve) - len(tested)} no random set reaches the contribution. "
        f"{demo['identification']['method']} at top_rate {demo['top_rate']} was chosen on validation text among two methods and four rates. The demo took {demo['seconds']['total']:.0f} s."
    ]


def verdicts_table() -> list[str]:
    """How often each verdict of the report holds, under labels that mean nothing and under languages."""
    smaller = [row for row in read("pair_calibration.jsonl") if "effect" not in row["labels"]]
    measured = [*smaller, *read("verdict_calibration.jsonl")]  # where both have a line, the larger run's stands
    by_title: dict[str, dict[str, dict]] = {}
    for row in measured:
        by_title.setdefault(row["verdict"], {})[row["labels"]] = row
    dealt = ("no language", "planted pair", "planted", "languages")
    columns = [labels for labels in dealt if any(row["labels"] == labels for row in measured)]
    rows = [f"| verdict | {' | '.join(columns)} |", f"|---|{'---|' * len(columns)}"]
    for title, found in by_title.items():
        if set(columns) & set(found):
            rows.append(f"| {title} | {' | '.join(counted_cell(found.get(labels)) for labels in columns)} |")
    rows += [
        "",
        "| simulated steering, steered against controls | targets that pass | any of twelve passes |",
        "|---|---|---|",
    ]
    rows += [
        f"| {row['verdict'].removeprefix('steering, ')} | {share(row['share'], 1)} | {share(row['any_target'], 1)} |"
        for row in measured
        if row["labels"] in ("no effect", "effect")
    ]
    fluent = [row for row in measured if row["labels"] == "fluency"]
    if fluent:
        rows += ["", "| simulated fluency, 22 answers against 22 native ones | share of samples |", "|---|---|"]
        rows += [f"| {row['verdict']} | {share(row['share'], 1)} |" for row in fluent]
    return rows


def counted_cell(row: dict | None) -> str:
    """Share, its standard error over populations, and the counts behind it."""
    if row is None:
        return "–"
    error = "" if row["standard_error"] is None else f" ± {row['standard_error']:.3f}"
    return f"{row['share']:.3f}{error} ({row['holds']} of {row['tested']})"


def amounts_table() -> list[str]:
    """How far sets of less text agree with those of all of it, in the bundled model and in Gemma."""
    columns, names = [], []
    for name, model in (("demo.json", "bundled model"), ("study-gemma-3-270m.json", "Gemma 3 270M")):
        by_share: dict[float, list[dict]] = {}
        study = read(name)
        names.append(f"{model}, of {study['budget']['observe_tokens']:,} tokens a language | by chance")
        for row in study["controls"]["corpus_size"]:
            by_share.setdefault(row["share"], []).append(row)
        columns.append(by_share)
    table = [f"| part of the text | {' | '.join(names)} |", "|---|---|---|---|---|"]
    for part in sorted(columns[0]):
        cells = []
        for by_share in columns:
            agreement = [row["jaccard"] for row in by_share[part] if row["jaccard"] is not None]
            cells += [
                f"{mean(agreement):.2f} ({min(agreement):.2f})",
                f"{mean(row['chance'] for row in by_share[part]):.3f}",
            ]
        table.append(f"| {100 * part:.3g} % | {' | '.join(cells)} |")
    return table
