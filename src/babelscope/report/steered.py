"""Sections on steering: how much of it, into which language, from which."""

import math
from collections.abc import Mapping

import numpy as np

from babelscope.axes import Float
from babelscope.figures import STRENGTH_UNIT, DosePoint, Real, dose_response_lines, source_target_map, steering_bars
from babelscope.report.claim_form import to_array
from babelscope.report.claims import macro_success, native_answers, success_of_trials
from babelscope.report.markup import (
    Caption,
    Markup,
    Plot,
    Section,
    element,
    figure_block,
    join,
    language_cell,
    matrix_records,
    missing,
    table,
)
from babelscope.report.recorded_facts import UNRECORDED, seed_of
from babelscope.report.results import Results
from babelscope.report.results.steering_record import SourcesByTargets, SteeredStream
from babelscope.report.selection_sections import matrix_table
from babelscope.report.wording import counted, known, names, percent, plain, span
from babelscope.steering.sweeps.fluent_choice import LEAST_RATIO, MOST_RATIO

FLUENT = (LEAST_RATIO, MOST_RATIO)
"""Perplexity of steered over native answers that still counts as fluent."""
COMPARISONS = {
    "native": "Native text",
    "unsteered": "Unsteered",
    "random": "Random direction",
    "other_language": "Other language's direction",
    "neuron_arithmetic": "Neuron arithmetic",
}


def dose_section(results: Results, run: str) -> Section:
    """Figure 5: success and fluency against strength."""
    title = "How much steering is enough"
    steering = results.steered
    rows = steering.sweep
    if not rows:
        return Section("dose", title, missing("Dose–response"))
    points = [
        DosePoint(
            layer=int(row.layer),
            strength=row.strength,
            success=float(row.success),
            low=_nan(row.low),
            high=_nan(row.high),
            perplexity_ratio=_nan(row.perplexity_ratio),
            distinct4_ratio=_nan(row.distinct4_ratio),
        )
        for row in rows
    ]
    chosen = _chosen(results)
    caption = Caption(
        shows="Success and fluency by strength and layer, on the development prompts.",
        read="Above: answers recognised as the target language, with intervals. Below: perplexity of the answers "
        f"over that of native ones, on a logarithmic scale; inside the band ({LEAST_RATIO:g}–{MOST_RATIO:g}) they are "
        "as fluent. The ring is the setting that was chosen here and then tested once on other prompts."
        + (f" It lies at the edge of the grid ({'; '.join(steering.edge)}); widen the grid." if steering.edge else ""),
        n=f"{counted([row.n for row in rows if row.n is not None])} answers a point",
        control="strength 0 where it was run; the native answers that perplexity is divided by",
        seed=seed_of(results, "steering"),
        unit=f"% of answers (above), ratio of perplexities (below), strength: {_strength_unit(results)}",
    )
    lines = [
        (
            str(point.layer),
            plain(point.strength),
            percent(point.success, 1),
            span(point.low, point.high, 1, factor=100),
            plain(point.perplexity_ratio),
            plain(point.distinct4_ratio),
            plain(row.n, 0),
        )
        for point, row in zip(points, rows, strict=True)
    ]
    head = ("Layer", "Strength", "Success", "Interval", "Perplexity ×", "Distinct-4 ×", "n")
    plots = [
        Plot(
            dose_response_lines(points=points, band=FLUENT, chosen=chosen, unit=_strength_unit(results)),
            "Success and perplexity ratio by strength, a line per layer",
            [{**point._asdict(), "answers": row.n} for point, row in zip(points, rows, strict=True)],
        )
    ]
    return Section("dose", title, figure_block(f"{run}-dose", plots, caption, table(head, lines)))


def steering_section(results: Results, run: str) -> Section:
    """Figure 6: success by source and target, and by target against every control."""
    title = "Whether steering works"
    steering = results.steered
    success = results.measured(steering.success)
    body = [_bars(results, f"{run}-targets", success) if success else missing("Steering")]
    if steering.by_source is None:
        body.append(missing("Success by language of the prompt"))
    else:
        body.append(_source_map(results, f"{run}-sources", steering.by_source))
    if steering.stream is not None:
        body.append(element("p", _stream(steering.stream, steering.form), class_="note"))
    if left_out := steering.not_measurable:
        body.append(
            element("p", f"Not measurable: {names(left_out)} – the language detector does not know it.", class_="note")
        )
    return Section("steering", title, join(body))


def _bars(results: Results, name: str, success: Mapping[str, Real]) -> Markup:
    ends = {
        tag: (ends.low, ends.high)
        for tag, ends in results.measured(results.steered.success_interval).items()
        if known(ends.low) and known(ends.high)
    }
    trials = success_of_trials(results)
    rates_by_control = {key: trials[key] for key in COMPARISONS if trials[key]}
    targets = list(success)
    figure = steering_bars(success=success, intervals=ends, comparisons=rates_by_control, targets=targets)
    absent = [label.lower() for key, label in COMPARISONS.items() if key not in rates_by_control]
    caption = Caption(
        shows="Answers in the target language, by target.",
        read="The bar is steering with its 95 % Wilson interval"
        + ("" if ends else " (not measured in this run)")
        + "; the marks are what it is compared with. Where the interval reaches the native mark, this measure can "
        "not tell steering from native "
        "text." + (f" Not measured in this run: {', '.join(absent)}." if absent else ""),
        n=_answers(results),
        control="unsteered, random direction of the same norm, another language's direction; ceiling: "
        + native_answers(results),
        seed=seed_of(results, "steering"),
        unit=f"% of answers; {_setting(results)}",
    )
    rows = [
        (
            language_cell(tag),
            percent(success[tag], 1),
            span(*ends.get(tag, (None, None)), 1, factor=100),
            *(percent(rates.get(tag), 1) for rates in rates_by_control.values()),
            plain(results.steered.perplexity_ratio.get(tag)),
            plain(results.steered.distinct4_ratio.get(tag)),
        )
        for tag in targets
    ]
    head = (
        "Target",
        "Steered",
        "Interval",
        *(COMPARISONS[key] for key in rates_by_control),
        "Perplexity ×",
        "Distinct-4 ×",
    )
    macro = [
        (COMPARISONS.get(key, key.replace("_", " ")), macro_success(results, key))
        for key in results.steered.macro or {}
    ]
    means = [table(("Mean over targets", "Success"), macro)] if macro else []
    records = [
        {"target": tag, "answers": kind, "success": rates.get(tag), "low": low, "high": high}
        for tag in targets
        for kind, rates in {"steered": success, **rates_by_control}.items()
        for low, high in [ends.get(tag, (None, None)) if kind == "steered" else (None, None)]
    ]
    plot = Plot(figure, "Success by target beside native text and controls", records)
    return figure_block(name, [plot], caption, table(head, rows), *means)


def _source_map(results: Results, name: str, by_source: SourcesByTargets) -> Markup:
    values, sources, targets = to_array(by_source.success), by_source.sources, by_source.targets
    n = None if by_source.n is None else to_array(by_source.n)
    figure = source_target_map(success=values, n=n, sources=sources, targets=targets)
    caption = Caption(
        shows="Success by language of the prompt and target.",
        read="Pale is low, dark is high (the other way round on a dark page): a pale row is a language hard to leave, "
        "a pale column one hard to reach. A cell of fewer than ten answers has no colour and says its n; empty cells "
        "were not measured.",
        n=_answers(results) + ("; answers of a cell not recorded" if n is None else f"; {_per_cell(n)} a cell"),
        control="the figure above",
        seed=seed_of(results, "steering"),
        unit=f"% of answers; {_setting(results)}",
    )
    numbers = matrix_table(values, sources, targets, lambda x: plain(100 * x, 1))
    records = matrix_records(values, sources, targets, ("source", "target", "success"))
    if n is not None:
        records = [{**row, "answers": count} for row, count in zip(records, n.ravel().tolist(), strict=True)]
    plot = Plot(figure, "Success by language of the prompt (rows) and target (columns)", records)
    return figure_block(name, [plot], caption, numbers)


def _chosen(results: Results) -> list[tuple[int, Real]]:
    layer, strength = results.steered.layer, results.steered.strength
    pairs = [(_of(layer, tag), _of(strength, tag)) for tag in results.languages]
    return sorted({(int(a), float(b)) for a, b in pairs if known(a) and known(b)})


def _of(value: Real | Mapping[str, Real], tag: str) -> Real:
    return value.get(tag, math.nan) if isinstance(value, Mapping) else value


def _setting(results: Results) -> str:
    steering = results.steered
    settings = {
        "layer": steering.layer,
        "strength": steering.strength,
        "temperature": steering.temperature,
        "new tokens": steering.new_tokens,
    }
    return ", ".join(
        f"{name} by language" if isinstance(value, Mapping) else f"{name} {value:g}"
        for name, value in settings.items()
        if isinstance(value, Mapping) or (value is not None and known(value))
    )


def _stream(stream: SteeredStream, form: str | None) -> str:
    """What massive units and first tokens hold at the layer, and whether the directions are made of them too."""
    units = stream.left_out or ()
    left_out_text = (
        f" and {'unit' if len(units) == 1 else 'units'} {', '.join(f'{unit:g}' for unit in units)}" if units else ""
    )
    form_text = (
        f"are made without first tokens{left_out_text}" if form == "ordinary" else "are made of all tokens and units"
    )
    return (
        f"At the chosen layer the largest unit ({stream.unit:g}) holds {percent(stream.unit_share, 1)} of the "
        f"squared length of tokens, and a document's first token is {plain(stream.first_ratio, 1)} times as large "
        f"in square as the others; directions there {form_text}."
    )


def _strength_unit(results: Results) -> str:
    return results.steered.strength_unit or STRENGTH_UNIT


def _answers(results: Results) -> str:
    n = list(results.measured(results.steered.n).values())
    if not n:
        return f"answers per target {UNRECORDED}"
    return f"{counted(n)} answers per target"


def _per_cell(n: Float[np.ndarray, "source target"]) -> str:
    return counted([count for count in n.ravel().tolist() if count])


def _nan(value: Real | None) -> float:
    return math.nan if value is None else float(value)
