"""Tables of the main job: ablation, steering, cost."""

from math import isnan
from statistics import mean

from babelscope.controls.matched_sets import LEAST_MATCH
from babelscope.report.results.ablation_record import Ablation, HarmInUnits
from babelscope.report.results.selection_record import CorpusShare
from babelscope.report.results.value_kinds import BoundedEstimate
from tables.measured import given, read, read_results, read_study, share

CONTROLS = ("layer_matched", "contribution_matched")


def ablation_table(name: str = "demo.json") -> list[str]:
    demo = read_results(name)
    ablation = demo.ablation
    rows = [
        "| set of | neurons | own text | most hurt other text | layer-matched | contribution-matched | corrected p | own text most hurt |"
    ]
    rows.append("|---|---|---|---|---|---|---|---|")
    for k, tag in enumerate(demo.languages):
        own_harm = ablation.relative_harm[k][k]
        largest = max(value for t, value in enumerate(ablation.relative_harm[k]) if t != k)
        random = [share(mean_harm(ablation, control, tag), 2) for control in CONTROLS]
        verdict = "yes" if is_specific(ablation, tag) else ("yes, interval reaches 0" if own_harm > largest else "no")
        rows.append(
            f"| {tag} | {demo.neurons[tag]} | {share(own_harm, 2)} | {share(largest, 2)} | {' | '.join(random)} "
            f"| {p_cell(ablation, tag)} | {verdict} |"
        )
    return rows


def mean_harm(ablation: Ablation, control: str, tag: str) -> float:
    """Mean absolute harm of one language's random sets."""
    harms = given(
        {"layer_matched": ablation.layer_matched, "contribution_matched": ablation.contribution_matched}[control][tag]
    )
    return sum(map(abs, harms)) / len(harms)


def is_specific(ablation: Ablation, tag: str) -> bool:
    """Whether the own text is hurt most, with the interval above zero."""
    return given(given(ablation.specificity)[tag]).low > 0


def corrected_p(ablation: Ablation, tag: str) -> float | None:
    """The larger p of the two controls, corrected over languages; None where one of them is not matched."""
    if given(ablation.achieved_contribution)[tag] < LEAST_MATCH:
        return None
    adjusted = given(ablation.p_adjusted)
    return max(given(adjusted.layer_matched)[tag], given(adjusted.contribution_matched)[tag])


def p_cell(ablation: Ablation, tag: str) -> str:
    p = corrected_p(ablation, tag)
    return f"unmatched ({share(given(ablation.achieved_contribution)[tag], 0)})" if p is None else f"{p:.2f}"


def steering_table(name: str = "demo.json") -> list[str]:
    steering = read_results(name).steered
    columns = (
        steering.success, steering.native, steering.unsteered, steering.random, steering.other_language,
        steering.neuron_arithmetic,
    )  # fmt: skip
    rows = [
        "| target | steered | native ceiling | unsteered | random direction | other language | neuron arithmetic | perplexity ratio | distinct-4 ratio |"
    ]
    rows.append("|---|" + "---|" * 8)
    for tag in steering.success:
        cells = " | ".join(share(given(column).get(tag), 0) for column in columns)
        rows.append(f"| {tag} | {cells} | {steering.perplexity_ratio[tag]:.2f} | {steering.distinct4_ratio[tag]:.2f} |")
    names = ["steered", "native", "unsteered", "random", "other_language", "neuron_arithmetic"]
    cells = " | ".join(bounded(given(steering.macro)[name]) for name in names)
    distinct = sum(steering.distinct4_ratio.values()) / len(steering.distinct4_ratio)
    rows.append(f"| macro (95 %) | {cells} | {given(steering.geometric_mean_perplexity_ratio):.2f} | {distinct:.2f} |")
    return rows


def bounded(estimate: BoundedEstimate | None) -> str:
    """A share with its interval."""
    value, low, high = given(estimate)
    return f"{share(value, 0)} ({share(low, 0)}–{share(high, 0)})"


def study_lines(name: str) -> list[str]:
    """What a study of a real model was, what it took, and in how many languages its main claims hold."""
    study, expected_seconds, number_format, threads = read_study(name)
    model, ablation, steering = given(study.model), study.ablation, study.steered
    stages = [stage for stage in expected_seconds if stage in study.seconds]
    took, expected = (sum(seconds[stage] for stage in stages) for seconds in (study.seconds, expected_seconds))
    scored = {name: bounded(estimate) for name, estimate in given(steering.macro).items()}
    exclusive = given(given(ablation.parts).exclusive)
    chosen = f"layer {steering.layer}, strength {steering.strength}"
    return [
        f"{model['parameters'] / 1e6:.0f}M parameters, {model['layers']} layers, in {model['dtype'].removeprefix('torch.')}; "
        f"{given(study.identification)['method']} at top_rate {study.top_rate}. The stages took {took / 60:.0f} min on "
        f"{threads} thread{'s' * (threads > 1)} beside other work, where {expected / 60:.0f} min were said before; memory reached "
        f"{max(study.environment['peak_mib'].values()):,} MiB. Sets paired with texts at random: "
        f"p = {ablation.pairing_p:.4f}. Right answers at {chosen}{', the edge of the grid' if steering.edge else ''}: "
        f"steered {scored['steered']}, native {scored['native']}, unsteered {scored['unsteered']}, random direction "
        f"{scored['random']}, other language {scored['other_language']}.",
        "",
        "| own text hurt most, interval above zero | " + " | ".join(UNIT_NAMES.values()) + " |",
        "|---|---|---|---|",
        f"| whole set | {' | '.join(most_hurt(ablation.by_unit, unit) for unit in UNIT_NAMES)} |",
        f"| neurons of that language alone | {' | '.join(most_hurt(exclusive.by_unit, unit) for unit in UNIT_NAMES)} |",
        "",
        *(f"{line}." for line in number_format),
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
        study = read_results(f"study-{name}.json")
        macro, ablation = given(study.steered.macro), study.ablation
        scored = {name: share(given(estimate).estimate, 0) for name, estimate in macro.items()}
        _, low, high = given(macro["steered"])
        exclusive = given(given(ablation.parts).exclusive)
        sentences.append(
            f"In [{title}](docs/gallery/{name}.html), {len(study.languages)} languages: {scored['steered']} of the steered answers "
            f"are right ({share(low, 0)}–{share(high, 0)}; native text {scored['native']}, unsteered "
            f"{scored['unsteered']}, random directions {scored['random']}); the neurons of one language alone hurt its own text most, "
            f"in each of three units, in {most_hurt(exclusive.by_unit, *UNIT_NAMES)}, whole sets in {most_hurt(ablation.by_unit, *UNIT_NAMES)}."
        )
    return [" ".join(sentences)]


UNIT_NAMES = {"relative": "of the loss", "nats_per_token": "nats per token", "bits_per_byte": "bits per byte"}


def most_hurt(by_unit: HarmInUnits | None, *names: str) -> str:
    """Languages whose own text is hurt more than any other, with the interval above zero in every unit named."""
    units = given(by_unit)
    harm = {"relative": units.relative, "nats_per_token": units.nats_per_token, "bits_per_byte": units.bits_per_byte}
    leads = [given(given(harm[name]).specificity) for name in names]
    holds = [all((lead := of_unit[tag]) is not None and lead.low > 0 for of_unit in leads) for tag in leads[0]]
    return f"{sum(holds)} of {len(holds)}"


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
    demo = read_results("demo.json")
    ablation, tags = demo.ablation, demo.languages
    own_harm = sum(ablation.relative_harm[k][k] for k in range(len(tags)))
    ratios = {control: own_harm / sum(mean_harm(ablation, control, tag) for tag in tags) for control in CONTROLS}
    sure = sum(is_specific(ablation, tag) and demo.neurons[tag] >= 5 for tag in tags)
    tested = [p for tag in tags if (p := corrected_p(ablation, tag)) is not None]
    small = sum(p <= 0.05 + 1e-9 for p in tested)
    unmatched = [tag for tag in tags if corrected_p(ablation, tag) is None]
    most = sum(given(ablation.own_hurt_most)[tag] for tag in tags)
    return [
        f"With the neurons of one of its twelve main languages off, that language's own text is hurt most in {most} of "
        f"{len(tags)}, in {sure} with the interval above zero (sets paired with texts at random: p = "
        f"{ablation.pairing_p:.4f}). Own harm is on average {ratios['layer_matched']:.1f} times that of random sets of "
        f"equal size in each layer, and {ratios['contribution_matched']:.1f} times that of random sets of equal "
        f"contribution: the neurons matter, which does not yet say that they are of a language. Against both kinds of "
        f"random sets p ≤ .05, corrected, in {small} of {len(tested)}; for {' and '.join(unmatched)} no random set reaches the "
        f"contribution, and there is no test. The rule ({given(demo.identification)['method']} at top_rate "
        f"{demo.top_rate}) was chosen on validation text among two methods and four rates. The demo took "
        f"{demo.seconds['total']:.0f} s."
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
        by_share: dict[float, list[CorpusShare]] = {}
        study = read_results(name)
        names.append(f"{model}, of {given(study.budget)['observe_tokens']:,} tokens per language | by chance")
        for row in given(study.controlled.corpus_size):
            by_share.setdefault(row.share, []).append(row)
        columns.append(by_share)
    table = [f"| part of the text | {' | '.join(names)} |", "|---|---|---|---|---|"]
    for part in sorted(columns[0]):
        cells = []
        for by_share in columns:
            agreement = [row.jaccard for row in by_share[part] if not isnan(row.jaccard)]
            cells += [
                f"{mean(agreement):.2f} ({min(agreement):.2f})",
                f"{mean(given(row.chance) for row in by_share[part]):.3f}",
            ]
        table.append(f"| {100 * part:.3g} % | {' | '.join(cells)} |")
    return table
