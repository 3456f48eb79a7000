"""Section on ablation: what switching a set off harms, and whether random sets do the same."""

import numpy as np

from babelscope.axes import Float
from babelscope.figures import Number, ablation_map, colour_limit, harm_against_draws
from babelscope.report.harm_claims import adjusted_p, p_pair, unmatched
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
from babelscope.report.results import Results
from babelscope.report.selection_sections import UNRECORDED, matrix_table, seed_of
from babelscope.report.wording import counted, harm_digits, known, p_value, percent, plain, span


def ablation_section(results: Results, run: str) -> Section:
    """Figure 4: the matrix of harm, and own-language harm against random sets."""
    harm = results.matrix("ablation.relative_harm")
    assert harm is not None
    body = [
        element(
            "p",
            "A set is switched off by holding its neurons at 0 while the model reads held-out text. Harm is the rise "
            "of the text's negative log-likelihood, in % of what it was without.",
        ),
        _harm_map(results, f"{run}-harm", harm, "0"),
        _harm_draws(results, f"{run}-draws", harm.diagonal()),
    ]
    to_mean = results.matrix("ablation.relative_harm_to_mean")
    if to_mean is None:
        body.append(missing("Switching off to the mean instead of 0"))
    else:
        body += [
            element("h3", "To the mean instead of 0"),
            _harm_map(results, f"{run}-mean", to_mean, "the mean on the column's text"),
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
    bits = results.matrix("ablation.bits_per_byte")
    if bits is not None and held_at == "0":
        numbers += [
            element("p", "Bits per byte, rise"),
            matrix_table(bits, results.languages, results.languages, lambda x: plain(x, 4)),
        ]
    figure = ablation_map(relative_harm=harm, languages=results.languages)
    records = matrix_records(harm, results.languages, results.languages, ("set", "text", "relative_harm"))
    plot = Plot(figure, f"Relative harm by set and language, neurons held at {held_at}", records)
    return figure_block(name, [plot], caption, *numbers)


def _harm_draws(results: Results, name: str, own: Float[np.ndarray, " language"]) -> Markup:
    draws = {key: results.by_language(f"ablation.{key}") for key in ("layer_matched", "contribution_matched")}
    layer, contribution = ({tag: _numbers(row) for tag, row in draws[key].items()} for key in draws)
    pairs = {tag: p_pair(results, tag) for tag in results.languages}
    shown = {tag: f"{p_value(a)} · {p_value(b)}" for tag, (a, b) in pairs.items() if a is not None or b is not None}
    figure = harm_against_draws(
        own_harm=own, layer_matched=layer, contribution_matched=contribution, p=shown, languages=results.languages
    )
    n = results.find("ablation.draws")
    caption = Caption(
        shows="Own-language harm of each set beside that of random sets.",
        read="The diamond is the set, a dot one random set of the same size. A diamond clear to the right of its "
        "dots harms more than chance. On the right: rank p against layer-matched · contribution-matched draws; with "
        "R draws it cannot go below 1 ÷ (R + 1).",
        n=f"{_test_size(results)}; {plain(n, 0) if known(n) else UNRECORDED} draws a language and control",
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
            _ratio(results, "layer_matched", tag),
            _ratio(results, "contribution_matched", tag),
            p_value(pairs[tag][0]),
            p_value(pairs[tag][1]),
            p_value(adjusted_p(results, 0, tag)),
            p_value(adjusted_p(results, 1, tag)),
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
    rows = results.find("ablation.choice")
    if not rows:
        return missing("How the selected share was chosen")
    keys = list(dict.fromkeys(key for row in rows for key in row))
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
    said = []
    for key in ("documents", "tokens"):
        n = list(results.by_language(f"ablation.{key}").values())
        if n:
            said.append(f"{counted(n)} {key}")
    return f"{', '.join(said)} a language" if said else f"size of the test text {UNRECORDED}"


def _ratio(results: Results, key: str, tag: str) -> str:
    row = results.by_language(f"ablation.ratio_{key}").get(tag)
    if not row:
        return "–"
    short = unmatched(results).get(tag) if key == "contribution_matched" else None
    said = f"{plain(row[0], 1)} {span(row[1], row[2], 1)}".strip()
    return said if short is None else f"{said}, unmatched ({plain(short)} of the contribution)"


def _numbers(row: list[Number | None]) -> list[Number]:
    return [x for x in row if x is not None]


def _mean(row: list[Number] | None) -> Number | None:
    return float(np.mean(row)) if row else None
