"""Sections on steering: how much of it, into which language, from which."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from babelscope.axes import Float
from babelscope.figures import STRENGTH_UNIT, DosePoint, Number, dose_response_lines, source_target_map, steering_bars
from babelscope.report.claims import macro_success
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
from babelscope.report.results import Results, to_array
from babelscope.report.selection_sections import UNRECORDED, matrix_table, seed_of
from babelscope.report.wording import counted, known, names, percent, plain, span

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
    rows = results.find("steering.sweep")
    if not rows:
        return Section("dose", title, missing("Dose–response"))
    points = [
        DosePoint(
            layer=int(row["layer"]),
            strength=row["strength"],
            **{key: _nan(row.get(key)) for key in ("success", "low", "high", "perplexity_ratio", "distinct4_ratio")},
        )
        for row in rows
    ]
    chosen = _chosen(results)
    edge = results.find("steering.edge")
    caption = Caption(
        shows="Success and fluency by strength and layer, on the development prompts.",
        read="Above: answers recognised as the target language, with intervals. Below: perplexity of the answers "
        "over that of native ones, on a logarithmic scale; inside the band (0.67–1.5) they are as fluent. The ring "
        "is the setting that was chosen here and then tested once on other prompts."
        + (f" It lies at the edge of the grid ({'; '.join(edge)}); widen the grid." if edge else ""),
        n=f"{counted([row['n'] for row in rows if row.get('n') is not None])} answers a point",
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
            plain(row.get("n"), 0),
        )
        for point, row in zip(points, rows, strict=True)
    ]
    head = ("Layer", "Strength", "Success", "Interval", "Perplexity ×", "Distinct-4 ×", "n")
    plots = [
        Plot(
            dose_response_lines(points=points, chosen=chosen, unit=_strength_unit(results)),
            "Success and perplexity ratio by strength, a line a layer",
            [{**point._asdict(), "answers": row.get("n")} for point, row in zip(points, rows, strict=True)],
        )
    ]
    return Section("dose", title, figure_block(f"{run}-dose", plots, caption, table(head, lines)))


def steering_section(results: Results, run: str) -> Section:
    """Figure 6: success by source and target, and by target against every control."""
    title = "Whether steering works"
    success = results.by_language("steering.success")
    body: list[Markup] = []
    if success:
        body.append(_bars(results, f"{run}-targets", success))
    else:
        body.append(missing("Steering"))
    by_source = results.find("steering.by_source")
    if by_source is None:
        body.append(missing("Success by language of the prompt"))
    else:
        body.append(_source_map(results, f"{run}-sources", by_source))
    shares = results.find("steering.stream")
    if shares:
        body.append(element("p", _stream(shares, results.find("steering.form")), class_="note"))
    left_out = results.find("steering.not_measurable")
    if left_out:
        body.append(
            element("p", f"Not measurable: {names(left_out)} – the language detector does not know it.", class_="note")
        )
    return Section("steering", title, join(body))


def _bars(results: Results, name: str, success: Mapping[str, Number]) -> Markup:
    ends = {
        tag: (pair[0], pair[1])
        for tag, pair in results.by_language("steering.success_interval").items()
        if known(pair[0]) and known(pair[1])
    }
    rates_by_control = {key: results.by_language(f"steering.{key}") for key in COMPARISONS}
    rates_by_control = {key: rates for key, rates in rates_by_control.items() if rates}
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
        + results.native_answers,
        seed=seed_of(results, "steering"),
        unit=f"% of answers; {_setting(results)}",
    )
    rows = [
        (
            language_cell(tag),
            percent(success[tag], 1),
            span(*ends.get(tag, (None, None)), 1, factor=100),
            *(percent(rates.get(tag), 1) for rates in rates_by_control.values()),
            plain(results.by_language("steering.perplexity_ratio").get(tag)),
            plain(results.by_language("steering.distinct4_ratio").get(tag)),
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
        for key in results.find("steering.macro") or {}
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


def _source_map(results: Results, name: str, by_source: Mapping[str, list]) -> Markup:
    values = np.array([[_nan(x) for x in row] for row in by_source["success"]], dtype=np.float64)
    n = None if by_source.get("n") is None else to_array(by_source["n"])
    figure = source_target_map(success=values, n=n, sources=by_source["sources"], targets=by_source["targets"])
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
    numbers = matrix_table(values, by_source["sources"], by_source["targets"], lambda x: plain(100 * x, 1))
    records = matrix_records(values, by_source["sources"], by_source["targets"], ("source", "target", "success"))
    if n is not None:
        records = [{**row, "answers": count} for row, count in zip(records, n.ravel().tolist(), strict=True)]
    plot = Plot(figure, "Success by language of the prompt (rows) and target (columns)", records)
    return figure_block(name, [plot], caption, numbers)


def _chosen(results: Results) -> list[tuple[int, Number]]:
    layer, strength = results.find("steering.layer"), results.find("steering.strength")
    tags = results.languages if isinstance(layer, dict) or isinstance(strength, dict) else results.languages[:1]
    pairs = [(_of(layer, tag), _of(strength, tag)) for tag in tags]
    return sorted({(int(a), float(b)) for a, b in pairs if a is not None and b is not None})


def _of(value: Number | dict[str, Number | None], tag: str) -> Number | None:
    return value.get(tag) if isinstance(value, dict) else value


def _setting(results: Results) -> str:
    layer, strength = results.find("steering.layer"), results.find("steering.strength")
    said = [
        "layer by language" if isinstance(layer, dict) else f"layer {layer:g}",
        "strength by language" if isinstance(strength, dict) else f"strength {strength:g}",
    ]
    for key in ("temperature", "new_tokens"):
        value = results.find(f"steering.{key}")
        said += [f"{key.replace('_', ' ')} {value:g}"] if known(value) else []
    return ", ".join(said)


def _stream(shares: Mapping[str, Any], form: str | None) -> str:
    """What massive units and first tokens hold at the layer, and whether the directions are made of them too."""
    units = shares.get("left_out") or []
    left_out_text = (
        f" and {'unit' if len(units) == 1 else 'units'} {', '.join(f'{unit:g}' for unit in units)}" if units else ""
    )
    form_text = (
        f"are made without first tokens{left_out_text}" if form == "ordinary" else "are made of all tokens and units"
    )
    return (
        f"At the chosen layer the largest unit ({shares['unit']:g}) holds {percent(shares['unit_share'], 1)} of the "
        f"squared length of tokens, and a document's first token is {plain(shares['first_ratio'], 1)} times as large "
        f"in square as the others; directions there {form_text}."
    )


def _strength_unit(results: Results) -> str:
    return results.find("steering.strength_unit") or STRENGTH_UNIT


def _answers(results: Results) -> str:
    n = list(results.by_language("steering.n").values())
    if not n:
        return f"answers a target {UNRECORDED}"
    return f"{counted(n)} answers a target"


def _per_cell(n: Float[np.ndarray, "source target"]) -> str:
    return counted([count for count in n.ravel().tolist() if count])


def _nan(value: Number | None) -> float:
    return math.nan if value is None else float(value)
