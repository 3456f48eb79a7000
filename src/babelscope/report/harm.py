"""Section on ablation: what switching a set off harms, and whether random sets do the same."""

from collections.abc import Sequence
from dataclasses import fields

import numpy as np

from babelscope.axes import Float
from babelscope.figures import Real, ablation_map, colour_limit, harm_against_draws
from babelscope.report.claim_form import to_array
from babelscope.report.harm_claims import p_pair, random_sets, unmatched
from babelscope.report.markup import (
    Caption,
    Markup,
    Plot,
    Section,
    details,
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
from babelscope.report.results.ablation_record import TriedRate
from babelscope.report.results.record_json import to_json
from babelscope.report.results.value_kinds import BoundedEstimate
from babelscope.report.selection_sections import matrix_table
from babelscope.report.wording import counted, harm_digits, known, p_value, percent, plain, span


def ablation_section(results: Results, run: str) -> Section:
    """Figure 4: the matrix of harm, and own-language harm against random sets."""
    harm, to_mean = to_array(results.ablation.relative_harm), results.ablation.relative_harm_to_mean
    body = [
        element(
            "p",
            "A set is switched off by holding its neurons at 0 while the model reads held-out text. Harm is the rise "
            "of the text's negative log-likelihood, in % of what it was without.",
        ),
        _harm_map(results, f"{run}-harm", harm, "0"),
        _harm_draws(results, f"{run}-draws", harm.diagonal()),
    ]
    if to_mean is None:
        body.append(missing("Switching off to the mean instead of 0"))
    else:
        body += [
            element("h3", "To the mean instead of 0"),
            _harm_map(results, f"{run}-mean", to_array(to_mean), "the mean on the column's text"),
        ]
    body.append(_choice(results))
    return Section("ablation", "What switching a set off harms", join(body))


def _harm_map(results: Results, name: str, harm: Float[np.ndarray, "language language"], held_at: str) -> Markup:
    digits = harm_digits(harm.ravel().tolist())
    caption = Caption(
        shows=f"Harm of switching off the row's set on text in the column's language, neurons held at {held_at}.",
        read="The outlined diagonal is a language's own text. Orange is harm, blue is gain, no colour is nothing; "
        f"the colours are symmetric and stop at ±{plain(colour_limit(100 * harm), digits)} %. A set that is specific "
        "has an orange diagonal cell in a row without colour.",
        n=_test_size(results),
        control="the other languages in the same row; random sets in the next figure",
        seed="nothing random",
        unit="% of the negative log-likelihood (nats) of the text",
    )
    numbers = [matrix_table(harm, results.languages, results.languages, lambda x: plain(100 * x, digits))]
    if held_at == "0":
        bits = to_array(results.ablation.bits_per_byte)
        numbers += [
            element("p", "Bits per byte, rise"),
            matrix_table(bits, results.languages, results.languages, lambda x: plain(x, 4)),
        ]
    figure = ablation_map(relative_harm=harm, languages=results.languages)
    records = matrix_records(harm, results.languages, results.languages, ("set", "text", "relative_harm"))
    plot = Plot(figure, f"Relative harm by set and language, neurons held at {held_at}", records)
    return figure_block(name, [plot], caption, *numbers)


def _harm_draws(results: Results, name: str, own: Float[np.ndarray, " language"]) -> Markup:
    controls = random_sets(results)
    layer, contribution = ({tag: _numbers(row) for tag, row in control.draws.items()} for control in controls)
    pairs = {tag: p_pair(results, tag) for tag in results.languages}
    shown = {tag: f"{p_value(a)} · {p_value(b)}" for tag, (a, b) in pairs.items() if a is not None or b is not None}
    figure = harm_against_draws(
        own_harm=own, layer_matched=layer, contribution_matched=contribution, p=shown, languages=results.languages
    )
    n = results.ablation.draws
    draws = plain(n, 0) if n is not None and known(n) else UNRECORDED
    caption = Caption(
        shows="Own-language harm of each set beside that of random sets.",
        read="The diamond is the set, a dot one random set of the same size. A diamond clear to the right of its "
        "dots harms more than chance. On the right: rank p against layer-matched · contribution-matched draws; with "
        "R draws it cannot go below 1 ÷ (R + 1).",
        n=f"{_test_size(results)}; {draws} draws per language and control",
        control="layer-matched: as many unselected neurons in each layer; contribution-matched: unselected neurons "
        "of the same layer that write about as much into the residual stream",
        seed=seed_of(results, "ablation"),
        unit="% of the negative log-likelihood of own-language text",
    )
    digits = harm_digits(own.tolist())
    rows = [
        (
            language_cell(tag),
            percent(harm, digits),
            percent(_mean(layer.get(tag)), digits),
            percent(_mean(contribution.get(tag)), digits),
            _ratio(controls[0].ratio.get(tag)),
            _ratio(controls[1].ratio.get(tag), unmatched(results).get(tag)),
            p_value(pairs[tag][0]),
            p_value(pairs[tag][1]),
            *(p_value(control.adjusted_p.get(tag)) for control in controls),
        )
        for tag, harm in zip(results.languages, own.tolist(), strict=True)
    ]
    head = (
        "Language", "The "
        "set", "Layer-matched, mean", "Contribution-matched, mean", "Ratio, layer", "Ratio, contribution",
        "p, layer", "p, contribution", "corrected p, layer", "corrected p, contribution",
    )  # fmt: skip
    records = [
        {"language": tag, "set": kind, "relative_harm": value}
        for at, tag in enumerate(results.languages)
        for kind, values in (
            ("selected", [float(own[at])]), ("layer-matched", layer.get(tag, [])),
            ("contribution-matched", contribution.get(tag, [])),
        )
        for value in values
    ]  # fmt: skip
    plot = Plot(figure, "Own-language harm of each set and of random sets", records)
    return figure_block(name, [plot], caption, table(head, rows))


def _choice(results: Results) -> Markup:
    rows = [to_json(row) for row in results.ablation.choice or ()]
    if not rows:
        return missing("How the selected share was chosen")
    keys = [place.name for place in fields(TriedRate) if any(place.name in row for row in rows)]
    lines = [tuple(_cell(key, row.get(key)) for key in keys) for row in rows]
    words = {
        "top_rate": "Selected share",
        "own_hurt_most": "Own language hurt most",
        "languages_measured": "Given up after languages",
        "mean_own_harm": "Mean own harm",
    }
    head = [words.get(key, key.replace("_", " ")) for key in keys]
    return details("How the selected share was chosen", table(head, lines))


def _cell(key: str, value: object) -> str:
    if not isinstance(value, int | float):
        return "–" if value is None else str(value)
    if key in ("top_rate", "mean_own_harm") or key.endswith("_harm"):
        return percent(value, 3)
    return plain(value, 0 if float(value).is_integer() else 3)


def _test_size(results: Results) -> str:
    sizes = {"documents": results.ablation.documents, "tokens": results.ablation.tokens}
    measured = {name: list(results.measured(n).values()) for name, n in sizes.items()}
    said = [f"{counted(n)} {name}" for name, n in measured.items() if n]
    return f"{', '.join(said)} a language" if said else f"size of the test text {UNRECORDED}"


def _ratio(ratio: BoundedEstimate | None, short: Real | None = None) -> str:
    """short: share of the contribution, where the random sets are not matched."""
    if ratio is None:
        return "–"
    said = f"{plain(ratio.estimate, 1)} {span(ratio.low, ratio.high, 1)}".strip()
    return said if short is None else f"{said}, unmatched ({plain(short)} of the contribution)"


def _numbers(row: Sequence[Real]) -> list[Real]:
    return [x for x in row if known(x)]


def _mean(row: list[Real] | None) -> Real | None:
    return float(np.mean(row)) if row else None
