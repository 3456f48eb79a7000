"""What `steer --sweep`, `study` and `demo` say to a person: how often answers are right, beside every control."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from babelscope.cli.readable import aligned, number_of
from babelscope.cli.telling import Fields
from babelscope.cli.telling_counts import share_text
from babelscope.runs import duration

TRIALS = {
    "steered": "steered",
    "native": "native text, the ceiling",
    "unsteered": "not steered",
    "random": "random directions",
    "other_language": "another language's direction",
    "neuron_arithmetic": "neurons pushed instead",
}
"""Kinds of answers by their names in results."""


def interval_text(low: float, high: float) -> str:
    """Two shares as the ends of an interval, in whole per cent."""
    return f"{share_text(low, 0)} to {share_text(high, 0)}"


def trial_lines(macro: Mapping[str, Sequence[float]]) -> list[str]:
    """Right answers of every kind, mean over targets, with the interval over prompts."""
    rows = [["answers to test prompts", "right", "95 % interval"]]
    rows += [
        [TRIALS[name], share_text(share, 0), interval_text(low, high)] for name, (share, low, high) in macro.items()
    ]
    return aligned(rows)


def edge_lines(edge: Sequence[str]) -> list[str]:
    """What lies at the end of the grid, and the way on; none where nothing does."""
    return [f"at the edge of what was tried: {part}; widen it by --layers or --strengths" for part in edge]


def sweep_lines(fields: Fields, out: Path) -> list[str]:
    """The layer and strength that were chosen, and the score there, of all targets together and of each."""
    rows = [["target", "right", "95 % interval", "perplexity ×"]]
    for tag, (share, low, high) in fields["success"].items():
        ratio = fields["perplexity_ratio"][tag]
        rows.append([tag, share_text(share, 0), interval_text(low, high), "–" if ratio is None else f"{ratio:.2f}"])
    unknown = fields["not_measurable"]
    return [
        f"layer {fields['layer']}, strength {fields['strength']:g}, in multiples of the difference of means: chosen on "
        f"validation prompts, for all targets; everything is in {out}",
        *trial_lines(fields["macro"]),
        *aligned(rows),
        "perplexity ×: of steered answers over native ones, by the model as it is; far from 1 is not fluent",
        *edge_lines(fields["edge"]),
        *([f"not measured, since the judge does not know them: {', '.join(unknown)}"] if unknown else []),
    ]


def study_lines(results: Mapping[str, Any], report: Path) -> list[str]:
    """The sets and whether they hurt their own text most, the steering, and where the page is."""
    hurt, steering = results["ablation"]["own_hurt_most"], results.get("steering")
    rows = [["language", "neurons", "own text hurt most"]]
    rows += [
        [tag, f"{size:,}", {True: "yes", False: "no"}.get(hurt.get(tag), "–")]
        for tag, size in results["neurons"].items()
    ]
    chosen = (
        []
        if steering is None
        else [
            f"steering at layer {steering['layer']}, strength {steering['strength']:g}, in multiples of the difference "
            "of means",
            *trial_lines(steering["macro"]),
            *edge_lines(steering["edge"]),
        ]
    )
    return [
        *aligned(rows),
        f"{sum(hurt.values())} of {number_of(len(hurt), 'set')}, at top_rate {results['top_rate']:g}, hurt their own "
        "language's test text most when switched off",
        *chosen,
        f"took {duration(results['seconds']['total'])}; intervals, controls and what does not hold: {report}",
    ]
