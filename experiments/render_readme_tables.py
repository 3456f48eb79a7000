"""Which figures do README and the measurements share? All of them: this writes README's tables from docs/measured/.

`--check` writes nothing and fails where README says something else. There is no control: nothing is measured here.
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
    """Compare only; exit 1 where README differs."""


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
    }


def render(text: str) -> str:
    for name, lines in blocks().items():
        begin, end = f"<!-- measured: {name} -->", f"<!-- /measured: {name} -->"
        head, rest = text.split(begin)
        text = head + begin + "\n" + "\n".join(lines) + "\n" + end + rest.split(end)[1]
    return text


def run(config: Config) -> int:
    path = ROOT / "README.md"
    before = path.read_text()
    after = render(before)
    if config.check:
        sys.stdout.writelines(
            difflib.unified_diff(before.splitlines(True), after.splitlines(True), "README", "measured")
        )
        return int(before != after)
    path.write_text(after)
    return 0


if __name__ == "__main__":
    sys.exit(run(tyro.cli(Config)))
