"""Which figures do the pages and the measurements share? All of them: this writes their tables from docs/measured/.

`--check` writes nothing and fails where a page says something else. There is no control: nothing is measured here.
"""

import difflib
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Config:
    check: bool = False
    """Compare only; exit 1 where a page differs."""


PAGES = ("README.md", "docs/measurements.md")
"""A block between `<!-- measured: name -->` and its end is written here, wherever it stands."""


def read(name: str):
    text = (ROOT / "docs" / "measured" / name).read_text()
    return [json.loads(line) for line in text.splitlines()] if name.endswith("l") else json.loads(text)


def share(value: float | None, digits: int = 1) -> str:
    return "–" if value is None else f"{100 * value:.{digits}f} %"


def ablation_table(demo: dict) -> list[str]:
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


def steering_table(demo: dict) -> list[str]:
    found = demo["steering"]
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


def blocks() -> dict[str, list[str]]:
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
    summary = [
        f"Of the twelve main languages, the own text is hurt most, with the interval above zero, in {sure} "
        f"({sum(found['own_hurt_most'][tag] for tag in twelve)} without asking for the interval). Mean own harm is "
        f"{ratios['layer_matched']:.1f} times the mean absolute harm of layer-matched sets and "
        f"{ratios['contribution_matched']:.1f} times that of contribution-matched ones; p ≤ .05 against both in {small}. "
        f"{demo['identification']['method']} at top_rate {demo['top_rate']} was chosen on validation text among two methods and four rates. The demo took {demo['seconds']['total']:.0f} s."
    ]
    return {
        "summary": summary,
        "ablation": ablation_table(demo),
        "steering": steering_table(demo),
        "cost": cost_table(),
        "steering methods": methods_table(),
        "features": features_table(),
        "published masks": published_table(),
        "text sources": sources_table(),
        "delta": delta_table(),
        "kernels": kernel_table(),
        "training summary": training_summary(),
        "training": training_table("adapt-llama.jsonl"),
        "training reference": training_table("adapt-reference.jsonl"),
        "adaptation": adaptation_table(),
        "adaptation verdict": verdict_lines(),
        "adaptation rates": rates_table(),
    }


def training_table(name: str) -> list[str]:
    """A step of every way of training, beside the floor and the fused subnetwork."""
    _, *found = read(name)
    rows = [
        "| one step of | trained values | to the floor | to the fused form | GFLOP | saved for backward, MB | gradients and "
        "optimizer, MB |",
        "|---|" + "---|" * 6,
    ]
    for row in found:
        rows.append(
            f"| {row['variant']} | {row['trained']:,} | {spread(row, 'to_floor')} | {spread(row, 'to_fused')} "
            f"| {row['flops'] / 1e9:.1f} | {row['saved_bytes'] / 1e6:.1f} | {row['optimizer_bytes'] / 1e6:.2f} |"
        )
    return rows


def training_summary() -> list[str]:
    """One sentence from the benchmark, one for each share from the study."""
    _, *found = read("adapt-llama.jsonl")
    row = {one["variant"]: one for one in found}
    lora = (row["fused"]["saved_bytes"] + row["fused"]["optimizer_bytes"]) / (
        row["lora r8 mlp"]["saved_bytes"] + row["lora r8 mlp"]["optimizer_bytes"]
    )
    times = ", ".join(
        f"{row[name]['to_fused']:.2f} for {words}"
        for name, words in (
            ("fused, torch's products", "the same form with torch's own products"),
            ("lora r8 mlp", "LoRA on the MLPs"),
            ("shira", "SHiRA"),
            ("ffn mask", "a gradient mask"),
            ("full", "all parameters"),
        )
    )
    return [
        f"On one CPU thread a step with 1 % of the neurons takes {row['fused']['to_floor']:.2f} of a step that trains nothing. "
        f"Other ways take, beside that step: {times}. It keeps {lora:.2f} of LoRA's bytes for backward, gradients and optimizer.",
        "",
        *verdict_lines(),
    ]


def spread(row: dict, name: str) -> str:
    return f"{row[name]:.3f} ({row[f'{name}_low']:.3f}–{row[f'{name}_high']:.3f})"


def delta_table() -> list[str]:
    rows = [
        "| weights | neurons | apply and revert, ms | beside another delta, ms | bytes written |",
        "|---|---|---|---|---|",
    ]
    found = {(row["dtype"], row["percent_of_neurons"], row["variant"]): row for row in read("delta.jsonl")}
    for dtype, percent in dict.fromkeys(key[:2] for key in found):
        alone, beside = found[dtype, percent, "alone"], found[dtype, percent, "beside another delta"]
        rows.append(
            f"| {dtype} | {percent} % | {alone['ms']:.2f} ({alone['low']:.2f}–{alone['high']:.2f}) "
            f"| {beside['ms']:.2f} ({beside['low']:.2f}–{beside['high']:.2f}) | {alone['bytes_written']:,} |"
        )
    return rows


def kernel_table() -> list[str]:
    """Kernels on one CPU thread, by CPU time, beside plain torch."""
    rows = ["| kernel, shape | beside | times faster | memory of it |", "|---|---|---|---|"]
    for row in read("sae_counts.jsonl"):
        if row["clock"] == "process":
            memory = share(row["largest_tensor_share"])
            rows.append(f"| sae_counts, {row['shape']} | {row['base']} | {faster(row)} | {memory} |")
    for row in read("attention_stats.jsonl"):
        if row["clock"] == "process":
            shape = f"{row['tokens']} tokens, heads, key heads, dimension {row['heads, key heads, dimension']}"
            memory = share(row.get("memory_share")) if row["base"] == "eager patterns" else "–"
            rows.append(f"| attention_stats, {shape} | {row['base']} | {faster(row)} | {memory} |")
    return rows


def faster(row: dict) -> str:
    return f"{row['times_faster']:.2f} ({row['low']:.2f}–{row['high']:.2f})"


def study_rows() -> tuple[dict, list[dict], list[dict]]:
    """Facts, claims and runs of the adaptation study."""
    facts, *rows = read("adapt_underserved.jsonl")
    return facts, [row for row in rows if "claim" in row], [row for row in rows if "kind" in row]


def adaptation_table() -> list[str]:
    """Mean over seeds of gain and harm, by kind, share and language."""
    facts, _, runs = study_rows()
    runs = [row for row in runs if row["stage"] == "main"]
    languages = facts["config"]["languages"]
    rows = [
        "| trained | share | learning rate | " + " | ".join(f"{tag}: gain / harm (seeds)" for tag in languages) + " |",
        "|---|---|---|" + "---|" * len(languages),
    ]
    for kind, part in dict.fromkeys((row["kind"], row["share"]) for row in runs):
        mine = [row for row in runs if (row["kind"], row["share"]) == (kind, part)]
        cells = []
        for tag in languages:
            of = [row for row in mine if row["language"] == tag]
            mean = [sum(row[name] for row in of) / max(1, len(of)) for name in ("gain", "harm")]
            cells.append(f"{mean[0]:.3f} / {mean[1]:.3f} ({len(of)})" if of else "–")
        rows.append(f"| {kind} | {share(mine[0]['trained_share'], 2)} | {mine[0]['rate']:g} | {' | '.join(cells)} |")
    return rows


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


def published_table() -> list[str]:
    """Published masks as they were read, and our rules on published counts."""
    _, *found = read("published_masks.jsonl")
    rows = [
        "| published file | layers | union of the languages | expected | entries that differ |",
        "|---|---|---|---|---|",
    ]
    for row in found:
        rows.append(
            f"| {row['name']} | {row['layers']} | {row['union']:,} | {row['expected']:,} | {row.get('differing', '–')} |"
        )
    return rows


def sources_table() -> list[str]:
    """Mean Jaccard index over languages by pair of texts, a column a rule."""
    _, *found = read("text_sources.jsonl")
    rules = list(dict.fromkeys((row["method"], row["top_rate"]) for row in found))
    rows = [
        "| sets from | and from | " + " | ".join(f"{method}, {rate:g}" for method, rate in rules) + " |",
        "|---|---|" + "---|" * len(rules),
    ]
    cells: dict[tuple[str, str], list[str]] = {}
    for row in found:
        cell = f"{row['mean']:.2f} ({row['low']:.2f}–{row['high']:.2f}), chance {row['mean_chance']:.2f}"
        cells.setdefault(tuple(row["pair"]), []).append(cell)
    return [*rows, *(f"| {a} | {b} | {' | '.join(mine)} |" for (a, b), mine in cells.items())]


def rates_table() -> list[str]:
    """Gain and harm at every learning rate, one language and seed."""
    _, _, runs = study_rows()
    rows = ["| trained | share | learning rate | dev bits per byte | gain | harm |", "|---|---|---|---|---|---|"]
    for row in sorted((row for row in runs if row["stage"] == "rates"), key=lambda row: (row["kind"], row["rate"])):
        rows.append(
            f"| {row['kind']} | {share(row['trained_share'], 2)} | {row['rate']:g} | {row['dev']:.3f} "
            f"| {row['gain']:.3f} | {row['harm']:.3f} |"
        )
    return rows


def verdict_lines() -> list[str]:
    """The claim in words, from the paired differences; each side at its own learning rate, then at the same."""
    _, claims, runs = study_rows()
    lines = []
    for claim in claims:
        said = "holds" if claim["holds"] else "does not hold"
        rates = [
            {row["rate"] for row in runs if (row["kind"], row["share"], row["stage"]) == (kind, claim["share"], stage)}
            for kind, stage in (("language", "main"), ("random", STAGES[claim["learning_rates"]]))
        ]
        lines.append(
            f"- At {share(claim['share'])} trained, {claim['learning_rates']} ({min(rates[0]):g} and {min(rates[1]):g}): "
            f"language neurons gain more than layer-matched random ones in {claim['wins']} of {claim['pairs']} pairs of "
            f"seed and language and harm less in {claim['less_harm']}; mean difference of gain "
            f"{claim['mean_gain_difference']:+.4f}, of harm {claim['mean_harm_difference']:+.4f} bits per byte. By the "
            f"rule of the study the claim {said}."
        )
    return lines


STAGES = {"each at its best learning rate": "main", "both at that of the language's": "equal"}
"""Stage of the random neurons' rows, by the words of a claim."""


def render(text: str, made: dict[str, list[str]]) -> str:
    for name, lines in made.items():
        begin, end = f"<!-- measured: {name} -->", f"<!-- /measured: {name} -->"
        if begin in text:
            head, rest = text.split(begin)
            text = head + begin + "\n" + "\n".join(lines) + "\n" + end + rest.split(end)[1]
    return text


def run(config: Config) -> int:
    made, differs = blocks(), False
    for page in PAGES:
        path = ROOT / page
        before = path.read_text()
        after = render(before, made)
        differs |= before != after
        if config.check:
            sys.stdout.writelines(
                difflib.unified_diff(before.splitlines(True), after.splitlines(True), page, "measured")
            )
        else:
            path.write_text(after)
    return int(differs and config.check)


if __name__ == "__main__":
    sys.exit(run(tyro.cli(Config)))
