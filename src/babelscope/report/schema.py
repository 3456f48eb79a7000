"""What a results.json must and may hold; docs/results.schema.json says the same for other programs."""

from collections.abc import Iterator, Sequence
from typing import Any

from babelscope.report.json_checks import (
    anything,
    each,
    either,
    keyed,
    language_rows,
    language_square,
    languages,
    nullable,
    number,
    number_table,
    per_language,
    record,
    row,
    tag,
    text,
    truth,
)

_maybe = nullable(number)
_interval = nullable(each(_maybe, exactly=2))
_estimate = nullable(each(_maybe, exactly=3))
_number_each = per_language(_maybe)
_draws = per_language(nullable(each(_maybe)))


def _by_source(value: Any, at: str, tags: Sequence[str]) -> Iterator[str]:
    """A table whose sides are the sources and the targets named beside it."""
    faults = list(
        record({"sources": each(tag), "targets": each(tag), "success": number_table}, n=number_table)(value, at, tags)
    )
    if not faults:
        wanted = (len(value["sources"]), len(value["targets"]))
        faults = [
            f"{at}.{key} is {len(found)} × {len(found[0])}, not sources × targets {wanted[0]} × {wanted[1]}"
            for key in ("success", "n")
            if (found := value.get(key)) is not None and (len(found), len(found[0])) != wanted
        ]
    yield from faults


_BY_UNIT = record(
    {},
    **dict.fromkeys(
        ("relative", "nats_per_token", "bits_per_byte"),
        record({"specificity": per_language(_estimate)}, own_hurt_most=per_language(truth), pairing_p=number),
    ),
)
_PART = record(
    {"neurons": per_language(number), "relative_harm": language_square},
    own_harm=per_language(_estimate),
    **dict.fromkeys(("layer_matched", "p", "p_adjusted", "tokens"), _number_each),
    by_unit=_BY_UNIT,
)
_PARTS = record(
    {},
    **dict.fromkeys(("exclusive", "script_and_family", "script", "family", "further"), _PART),
    romanised=keyed(per_language(_estimate)),
    romanised_bits_per_byte=_number_each,
)
ABLATION = record(
    {
        "relative_harm": language_square,
        "bits_per_byte": language_square,
        "layer_matched": _draws,
        "contribution_matched": _draws,
        "p": per_language(nullable(either(number, row(_maybe, _maybe)))),
    },
    nats_per_token=language_square,
    by_unit=_BY_UNIT,
    parts=_PARTS,
    p_by_control=record({"layer_matched": _number_each, "contribution_matched": _number_each}),
    achieved_contribution=_number_each,
    relative_harm_to_mean=language_square,
    specificity=per_language(_estimate),
    p_adjusted=record({}, layer_matched=_number_each, contribution_matched=_number_each),
    pairing_p=number,
    ratio_layer_matched=per_language(_estimate),
    ratio_contribution_matched=per_language(_estimate),
    documents=_number_each,
    tokens=_number_each,
    choice=each(record({"top_rate": number}, own_hurt_most=number, languages_measured=number, mean_own_harm=number)),
    draws=number,
    seed=number,
)
SWEEP_ROW = record(
    {"layer": number, "strength": number, "success": _maybe},
    **dict.fromkeys(("low", "high", "perplexity_ratio", "distinct4_ratio", "n"), number),
)
_SAMPLE = record(
    {"source": tag, "target": tag, "prompt": text, "answer": text},
    lines=each(row(text, nullable(tag))),
    recognised=truth,
    **dict.fromkeys(("unsteered", "verdict", "reason"), nullable(text)),
)
_STEERING = record(
    {
        "success": _number_each,
        "native": _number_each,
        "unsteered": _number_each,
        "random": _number_each,
        "perplexity_ratio": _number_each,
        "distinct4_ratio": _number_each,
        "layer": either(number, _number_each),
        "strength": either(number, _number_each),
    },
    other_language=_number_each,
    neuron_arithmetic=_number_each,
    success_interval=per_language(_interval),
    perplexity_interval=per_language(_interval),
    n=_number_each,
    p=_number_each,
    control_n=keyed(_number_each),
    macro=keyed(_estimate),
    strength_unit=text,
    edge=each(text),
    form=text,
    stream=record(dict.fromkeys(("unit", "unit_share", "first_ratio"), number), left_out=each(number)),
    receipt=keyed(keyed(number)),
    chat=record({}, system=text),
    neuron_arithmetic_edge=each(text),
    by_source=_by_source,
    sweep=each(SWEEP_ROW),
    not_measurable=each(tag),
    samples=each(_SAMPLE),
    seed=number,
    temperature=number,
    new_tokens=number,
)
_RETENTION = record(
    dict.fromkeys(("native", "romanised", "share"), _maybe),
    **dict.fromkeys(("shuffled_words", "english", "layer_matched", "low", "high", "romanised_bits_per_byte"), number),
)
_CONTROLS = record(
    {},
    shuffled_labels=per_language(
        nullable(record({"share_q05": _maybe}, n=number)),
        besides={"set_fdr": either(_maybe, _number_each), "draws": _maybe},
    ),
    corpus_size=each(record({"share": number, "language": tag, "jaccard": _maybe}, chance=number)),
    parallel=per_language(nullable(record({"jaccard": _maybe}, chance=number, lift=number))),
    script=per_language(nullable(either(record({"not_applicable": text}), _RETENTION))),
    overlap=record(
        {"shared": language_square},
        **dict.fromkeys(("lift_by_margins", "p_by_margins", "lead", "lead_low", "lead_high"), language_square),
        draws=number,
    ),
    seed=number,
)
RESULTS = record(
    {
        "schema": text,
        "languages": languages,
        "neurons": per_language(number, whole=True),
        "top_rate": number,
        "stability": per_language(nullable(each(_maybe, exactly=5))),
        "ablation": ABLATION,
        "seconds": keyed(_maybe),
        "environment": keyed(anything),
    },
    steering=_STEERING,
    stability_lead=per_language(_estimate),
    layers=record({"counts": language_rows}),
    set_size_interval=per_language(_interval),
    controls=_CONTROLS,
    model=keyed(anything),
    corpus=record({}, tokens=_number_each, shortfall=_number_each),
    identification=keyed(anything),
    budget=keyed(anything),
    parameters=keyed(anything),
    seed=number,
    seeds=keyed(_maybe),
    files=each(text),
)
"""The whole file: a check that yields every fault in it."""
